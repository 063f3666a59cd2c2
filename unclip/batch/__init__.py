"""Prompt files: read, checked line by line, drawn in micro-batches, recorded, resumed.

readers    a file in any of the formats -> Rows
wildcards  {red|blue} balloon -> prompts
plan       Rows -> Jobs, one an image, each checked
names      a Job -> the name of its file
folder     the output folder: its lock, its manifest, what is done
run        Jobs -> pictures in the folder
model      which model, and which revision of it, without loading it
"""
