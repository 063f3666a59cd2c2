#!/bin/bash
# Runs a prompt file on a SLURM cluster: one task per GPU, each with every N-th line and a folder of its own.
#
#   sbatch --array=1-8 examples/cluster/slurm.sh prompts.csv out
#
# Submit the same command again to resume what was interrupted. Fill in the names of your cluster here:
#SBATCH --job-name=unclip
#SBATCH --partition=gpu
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=unclip-%A-%a.log
set -euo pipefail

prompts=$1
out=$2
seed=${SEED:-1} # all tasks need the same one

# SLURM sends SIGTERM two minutes before the time is up: unclip finishes the images that are under way.
unclip batch "$prompts" -o "$out/$SLURM_ARRAY_TASK_ID" --seed "$seed" \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --model "${MODEL:-stickers}" &
trap 'kill -TERM $!' TERM
wait $! || status=$?
wait $! || status=$? # the first wait ends with the signal, the second with unclip
exit "${status:-0}"
