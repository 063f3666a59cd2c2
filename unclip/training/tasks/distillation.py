"""Distilling a stage of a loaded model into a network that samples with fewer evaluations, as training tasks.

A task learns from its teacher alone. The teacher denoises with the wrappers of inference (`Stage.denoiser`), and the
losses compare x0, so that networks that predict noise, x0 or the velocity are distilled alike.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.checkpoints.distilled import DistilledStage, distill_stage
from unclip.checkpoints.trainable import TrainableStage
from unclip.diffusion.denoiser import Denoise, Prediction, denoiser
from unclip.diffusion.guidance import NetworkInputs
from unclip.diffusion.masking import keep_known
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import add_noise, signal_and_noise
from unclip.diffusion.wrappers import clamp_x0
from unclip.inference.distillation import GUIDANCE_CHANNELS
from unclip.inference.model import UnclipModel
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs
from unclip.models.config import diffusers_config
from unclip.training.batch import Batch
from unclip.training.losses import noise_error, sample_noise, velocity_error
from unclip.training.samples import contact_sheet
from unclip.training.tasks.base import Examples, Loss
from unclip.training.tasks.options import DistillationOptions
from unclip.training.tasks.teacher_samples import CleanSamples, TeacherSource
from unclip.training.trajectory import Trajectory, consistency_target

DEFAULT_STEPS = 4
"""Steps of the sampler "consistency" for a network with a single segment."""
LEAST_SIGNAL = 0.03
"""Smallest last sqrt(alpha bar), by which x0 divides the error of the noise, for few steps of a network that predicts
noise. Kandinsky has 0.04, Stable Diffusion 0.07, a cosine schedule 0.00005."""
FROZEN = ("clip_mean", "clip_std", "token_embedding.weight")
"""Ends of the names of parameters that stay as they are: measured statistics, and one vector for each token."""


class DistillationTask:
    """What the two distillations share: the student's stage, the samples, and the guidance that is learned."""

    segments = 0

    def __init__(
        self, part: TrainableStage, teacher: UnclipModel, name: str, options: DistillationOptions, examples: Examples
    ):
        """part: the student, with the teacher's weights and without gradients. name: of its stage."""
        self.part = part
        self.options = options
        self.examples = examples
        self.source = TeacherSource(teacher, name, options)
        self.teacher = self.source.stage
        self.settings = distilled_settings(self.teacher, teacher.name, options, self.segments)
        self.network: nn.Module = part.stage.network
        if self.settings.distillation.embeds_guidance:
            add_guidance_input(part.backbone)
        for component, network in part.components.items():
            for parameter_name, parameter in network.named_parameters():
                trained = not f"{component}.{parameter_name}".endswith(FROZEN)
                parameter.requires_grad_(trained)
        # The codec is the teacher's, whose autoencoder is loaded.
        self.stage = distill_stage(replace(part.stage, codec=self.teacher.codec), self.settings)
        self.schedule = self.stage.schedule
        self.predicts = self.schedule.prediction_type
        self.size = self.source.size

    def fit_to_data(self) -> None:
        """Nothing: the weights are the teacher's."""

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """See `Task.loss`."""
        raise NotImplementedError

    def draw(self, batch: Batch) -> tuple[CleanSamples, Tensor, float]:
        """Clean samples, the same once for each noise level `b l ...` -> `(b l) ...`, and a guidance scale."""
        drawn = self.source.draw(batch)
        low, high = self.settings.guidance
        scale = low + (high - low) * float(batch.once(lambda generator: torch.rand((), generator=generator)))
        return drawn, self.repeated(drawn.x0), scale

    def repeated(self, values: Tensor) -> Tensor:
        """Each row once for each noise level."""
        return values.repeat_interleave(self.options.levels, dim=0)

    def repeated_inputs(self, inputs: NetworkInputs) -> NetworkInputs:
        """Network inputs with each row once for each noise level."""
        return {key: self.repeated(value) for key, value in inputs.items()}

    def teacher_denoiser(self, drawn: CleanSamples, scale: float, limit: float | None) -> Denoise:
        """The teacher's guided denoiser of the repeated samples, clamped to +-limit."""
        network = self.teacher.network
        uncond = None if drawn.uncond is None else self.repeated_inputs(drawn.uncond(network))
        inputs = StageInputs(self.repeated_inputs(drawn.cond(network)), uncond)
        denoise = self.teacher.denoiser(inputs, len(drawn.x0) * self.options.levels, scale, limit)

        def outside_autocast(x: Tensor, t: Tensor) -> Prediction:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                return denoise(x, t)

        return outside_autocast

    def student_denoiser(self, network: nn.Module, drawn: CleanSamples, scale: float) -> Denoise:
        """The student's denoiser of the repeated samples: a single evaluation, with gradients."""
        cond = self.repeated_inputs(drawn.cond(self.network))
        inputs = self.settings.distillation.condition(cond, scale)
        return denoiser(lambda x, t: network(x, t, **inputs), self.schedule)

    @torch.no_grad()
    def sample_grid(self) -> Image.Image | None:
        """A row of the teacher's samples above the student's, from the same noise; None for a prior."""
        count = self.options.samples
        if count == 0 or len(self.stage.shape) == 1:
            return None
        images, captions = self.examples(self.size, count)
        drawn = self.source.draw(Batch(images, captions, torch.Generator().manual_seed(0)))
        rows = []
        for stage in (self.teacher, self.stage):
            uncond = None if drawn.uncond is None else drawn.uncond(stage.network)
            inputs = StageInputs(without_hint(drawn.cond(stage.network)), uncond and without_hint(uncond))
            rows.append(stage.run(inputs, make_generators(range(count))).cpu())
        return contact_sheet(torch.cat(rows), count)

    def networks(self) -> dict[str, nn.Module]:
        """The networks of the stage."""
        return dict(self.part.components)

    def stage_config(self) -> dict[str, Any]:
        """Empty: the checkpoint keeps its own, and has `settings` beside it."""
        return {}


class GuidanceDistillation(DistillationTask):
    """The error of what the network predicts against the guided teacher: Meng et al. 2023 (arXiv:2210.03142), 3.1.

    For a network that predicts noise it is the error of the noise, else that of the velocity. A learned variance stays
    the teacher's.
    """

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The error at random timesteps."""
        drawn, x0, scale = self.draw(batch)
        t, noise = sample_noise(x0, self.schedule, batch)
        x = add_noise(x0, noise, t, self.schedule)
        target = self.teacher_denoiser(drawn, scale, None)(x, t)
        output = self.student_denoiser(network, drawn, scale)(x, t)
        error = noise_error if self.predicts == "epsilon" else velocity_error
        loss = error(output.x0, target.x0, t, self.schedule)
        if output.variance is not None and target.variance is not None:
            loss = loss + (output.variance - target.variance).square().mean()
        return loss, {}


class ConsistencyDistillation(DistillationTask):
    """The error of x0 against the end of the guided teacher's trajectory (`training.trajectory`)."""

    def __init__(self, part: TrainableStage, teacher: UnclipModel, name: str, options: DistillationOptions, *more: Any):
        self.segments = options.segments
        super().__init__(part, teacher, name, options, *more)
        self.trajectory = Trajectory.of(self.schedule, options.teacher_steps, options.segments)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The velocity error at random levels of the trajectory."""
        drawn, x0, scale = self.draw(batch)
        levels = batch.randint(1, self.trajectory.count + 1, self.options.levels).to(x0.device)
        t = self.trajectory.timestep(levels)
        x = add_noise(x0, batch.randn_like(x0), t, self.schedule)
        limit = self.schedule.clip
        known = None if drawn.known is None else self.repeated(drawn.known)

        def keep(denoise: Denoise) -> Denoise:
            return denoise if known is None else keep_known(denoise, x0, known)

        teacher = keep(self.teacher_denoiser(drawn, scale, limit))
        with torch.no_grad():
            current = keep(clamp_x0(self.student_denoiser(network, drawn, scale), limit))
            target = consistency_target(teacher, current, x, levels, self.trajectory)
        output = keep(self.student_denoiser(network, drawn, scale))(x, t)
        return velocity_error(output.x0, target, t, self.schedule), {}


TASKS: Mapping[str, type[DistillationTask]] = {
    "guidance": GuidanceDistillation,
    "consistency": ConsistencyDistillation,
}
"""The distillations by name."""


def distilled_settings(stage: Stage, teacher: str, options: DistillationOptions, segments: int) -> DistilledStage:
    """The settings of the finished stage. stage: of the teacher, named `teacher`. segments: 0 without consistency."""
    scale = stage.guidance if options.guidance is None else options.guidance
    low, high = scale if isinstance(scale, tuple) else (scale, scale)
    sampler, steps = stage.sampler, stage.steps
    if segments:
        sampler, steps = ("ddim", segments) if segments > 1 else ("consistency", DEFAULT_STEPS)
    return DistilledStage(
        teacher=teacher,
        guidance=(low, high),
        scale=min(max(stage.guidance, low), high),
        segments=segments,
        sampler=sampler,
        steps=steps if options.sample_steps is None else options.sample_steps,
    )


def loses_signal(stage: Stage) -> bool:
    """Whether a network that predicts noise cannot say what the clean sample is at the noisiest timestep."""
    last = torch.tensor([stage.schedule.num_train_timesteps - 1])
    signal, _ = signal_and_noise(torch.zeros(1), last, stage.schedule)
    return stage.schedule.prediction_type == "epsilon" and float(signal) < LEAST_SIGNAL


def add_guidance_input(unet: Any) -> None:
    """Give a U-Net an input for the embedded guidance scale, which changes nothing yet, unless it has one."""
    if diffusers_config(unet).get("time_cond_proj_dim") == GUIDANCE_CHANNELS:
        return
    embedding = unet.time_embedding
    weight = embedding.linear_1.weight
    embedding.cond_proj = nn.Linear(GUIDANCE_CHANNELS, embedding.linear_1.in_features, bias=False).to(weight)
    nn.init.zeros_(embedding.cond_proj.weight)
    unet.register_to_config(time_cond_proj_dim=GUIDANCE_CHANNELS)


def without_hint(inputs: NetworkInputs) -> NetworkInputs:
    """Network inputs in which no pixel is known."""
    return {key: torch.zeros_like(value) if key == "hint" else value for key, value in inputs.items()}
