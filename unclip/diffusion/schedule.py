"""The noise schedule: betas, prediction type, and the forward process."""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from torch import Tensor

from unclip.errors import CheckpointError

BETA_SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")

VARIANCE_TYPES = ("fixed_small_log", "learned_range")

SPACINGS = ("linspace", "leading")

_MAX_TIMESTEPS = 100_000

_DDPM_DEFAULTS = {  # of DDPMScheduler, DDIMScheduler and PNDMScheduler, for keys that a config leaves out
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "variance_type": "fixed_small",
    "timestep_spacing": "leading",
    "steps_offset": 0,
}


@dataclass(frozen=True)
class Schedule:
    """The schedule that a network was trained with: its noise levels and the meaning of its output.

    num_train_timesteps  2 .. 100,000
    beta_schedule        "squaredcos_cap_v2" (cosine), "linear", or "scaled_linear" (the square of a linear one)
    prediction_type      the output is "epsilon" (the noise), "sample" (x0) or "v_prediction" (the velocity)
    variance_type        "fixed_small_log", or "learned_range" for an output with twice the channels. An output with
                         twice the channels and a fixed variance has a learned variance that is not used
    clip                 limit of |x0| during sampling (1 for images in [-1, 1], 5 for Karlo's prior), or None
    beta_start, beta_end first and last beta, 0 .. 1, of a linear or scaled linear schedule
    spacing              timesteps of the samplers "ddpm" and "ddim": "linspace" (evenly over the whole range), or
                         "leading" (multiples of an integer stride, as Stable Diffusion and Kandinsky are sampled)
    steps_offset         added to every timestep of "leading"
    ends_at_first_level  the last step of "ddim" ends at the noise level of timestep 0 and not at x0, as configs with
                         set_alpha_to_one false ask for

    Raises CheckpointError for a value that is not supported.
    """

    num_train_timesteps: int = 1000
    beta_schedule: str = "squaredcos_cap_v2"
    prediction_type: str = "epsilon"
    variance_type: str = "fixed_small_log"
    clip: float | None = 1.0
    beta_start: float = 1e-4
    beta_end: float = 0.02
    spacing: str = "linspace"
    steps_offset: int = 0
    ends_at_first_level: bool = False

    def __post_init__(self) -> None:
        _one_of("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        _one_of("prediction_type", self.prediction_type, PREDICTION_TYPES)
        _one_of("variance_type", self.variance_type, VARIANCE_TYPES)
        _one_of("timestep_spacing", self.spacing, SPACINGS)
        count, clip = self.num_train_timesteps, self.clip
        if type(count) is not int or not 2 <= count <= _MAX_TIMESTEPS:
            raise CheckpointError(
                f"num_train_timesteps is {count!r:.40}; it must be a whole number from 2 to {_MAX_TIMESTEPS}"
            )
        if clip is not None and (type(clip) not in (int, float) or not 0 < clip < math.inf):
            raise CheckpointError(f"clip_sample_range is {clip!r:.40}; it must be a number above 0")
        for key in ("beta_start", "beta_end"):
            if type(value := getattr(self, key)) not in (int, float) or not 0 < value < 1:
                raise CheckpointError(f"{key} is {value!r:.40}; it must be a number between 0 and 1")
        if type(self.steps_offset) is not int or self.steps_offset not in (0, 1):
            raise CheckpointError(f"steps_offset is {self.steps_offset!r:.40}; it must be 0 or 1")
        if not self.alphas_cumprod()[-1] > 0:  # samplers divide by it
            raise CheckpointError(f"beta_end is {self.beta_end!r:.40}: the last of {count} timesteps has no signal")

    def alphas_cumprod(self) -> Tensor:
        """Alpha bar at every timestep, float32 on the CPU, as diffusers computes it. Shared: do not write to it."""
        return _scheduler(self.num_train_timesteps, self.beta_schedule, self.beta_start, self.beta_end).alphas_cumprod

    def betas(self) -> Tensor:
        """The betas at every timestep, float32 on the CPU, as diffusers computes them."""
        return _scheduler(self.num_train_timesteps, self.beta_schedule, self.beta_start, self.beta_end).betas

    def last_factor(self) -> float:
        """The factor by which UnCLIPScheduler multiplies x0 in its last step.

        It should be 1, but rounding of the betas makes it 1.0005 for 1000 timesteps. Parity with diffusers needs it: a
        small difference in the prior becomes large in the first step of the decoder, which divides by
        sqrt(alpha bar) = 5e-5.
        """
        scheduler = UnCLIPScheduler(num_train_timesteps=self.num_train_timesteps)
        return float(scheduler.betas[0] / (1 - scheduler.alphas_cumprod[0]))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Schedule":
        """A schedule of unCLIP from diffusers' scheduler_config.json. A missing key has UnCLIPScheduler's default."""
        for key in ("trained_betas", "rescale_betas_zero_snr", "thresholding"):
            if config.get(key):
                raise CheckpointError(f"the scheduler config sets {key}, which is not supported: unset it")
        variance = config.get("variance_type", cls.variance_type)
        return cls(
            num_train_timesteps=config.get("num_train_timesteps", cls.num_train_timesteps),
            beta_schedule=config.get("beta_schedule", cls.beta_schedule),
            prediction_type=config.get("prediction_type", cls.prediction_type),
            # the same variance; only its computation differs
            variance_type="fixed_small_log" if variance == "fixed_small" else variance,
            clip=config.get("clip_sample_range", 1.0) if config.get("clip_sample", True) else None,
            beta_start=config.get("beta_start", cls.beta_start),
            beta_end=config.get("beta_end", cls.beta_end),
        )

    @classmethod
    def from_ddpm_config(cls, config: dict[str, Any]) -> "Schedule":
        """A schedule from the config of DDPMScheduler, DDIMScheduler or PNDMScheduler, with their defaults and spacing.

        Latent diffusion models are published with these.
        """
        config = {**_DDPM_DEFAULTS, **config}
        return replace(
            cls.from_config(config),
            spacing=config["timestep_spacing"],
            steps_offset=config["steps_offset"],
            ends_at_first_level=not config.get("set_alpha_to_one", True),
        )

    def to_config(self) -> dict[str, Any]:
        """The scheduler_config.json of this schedule, which diffusers reads as well."""
        # unCLIP pipelines expect UnCLIPScheduler, but it does not support v prediction
        name = "DDPMScheduler" if self.prediction_type == "v_prediction" else "UnCLIPScheduler"
        return {
            "_class_name": name,
            "num_train_timesteps": self.num_train_timesteps,
            "beta_schedule": self.beta_schedule,
            "prediction_type": self.prediction_type,
            "variance_type": self.variance_type,
            "clip_sample": self.clip is not None,
            "clip_sample_range": 1.0 if self.clip is None else self.clip,
        }


def add_noise(x0: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """x_t from x0 and noise (`b ...`) at timesteps t (`b`): DDPM (Ho et al. 2020), equation 4."""
    a, s = signal_and_noise(x0, t, schedule)
    return a * x0 + s * noise


def signal_and_noise(x: Tensor, t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """sqrt(ab_t) and sqrt(1 - ab_t), `b 1 ...`, to multiply x (`b ...`) with."""
    ab = schedule.alphas_cumprod().to(x.device, as_float(x))[t]
    ab = ab.reshape(-1, *[1] * (x.ndim - 1))
    return ab.sqrt(), (1 - ab).sqrt()


def as_float(x: Tensor) -> torch.dtype:
    """float32, or the dtype of x if it is wider."""
    return torch.promote_types(x.dtype, torch.float32)


@cache
def _scheduler(count: int, beta_schedule: Any, beta_start: float, beta_end: float) -> Any:
    # Outside inference mode: training cannot use tensors that sampling cached in inference mode.
    with torch.inference_mode(False):
        return DDPMScheduler(count, beta_start, beta_end, beta_schedule)


def _one_of(key: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise CheckpointError(f"a schedule with {key}={value!r} is not supported: use {' or '.join(known)}")
