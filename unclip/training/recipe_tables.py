"""The tables of a recipe, with their keys, limits and defaults; `training.recipe` reads them from a file."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.training.tables import Table
from unclip.training.tasks.options import (
    AutoregressivePriorOptions,
    DecoderOptions,
    DistillationOptions,
    FineTuningOptions,
    InpaintingDecoderOptions,
    PriorOptions,
    SecondUpsamplerOptions,
    UpsamplerOptions,
)

STAGES = (
    "clip",
    "prior",
    "autoregressive_prior",
    "decoder",
    "inpainting_decoder",
    "upsampler",
    "second_upsampler",
)


def _check_sampler(name: str) -> str:
    if name not in SAMPLER_NAMES:
        raise ValueError(f"one of {', '.join(SAMPLER_NAMES)}")
    return name


class Fit(Table):
    """The optimisation of a stage."""

    batch_size: int = Field(default=32, ge=1, description="Images per step.")
    steps: int = Field(
        default=1000, ge=1, description="Length of the run in steps, unless --steps or --minutes sets another."
    )
    lr: float = Field(default=4e-4, ge=0, le=1, description="Peak learning rate.")
    warmup: int = Field(default=100, ge=0, description="Steps over which the learning rate rises to lr.")
    decay: float = Field(
        default=0.3, ge=0, le=1, description="Last fraction of the run, over which the rate falls to 0."
    )
    weight_decay: float = Field(
        default=0.01, ge=0, le=1, description="AdamW's weight decay, for matrices and kernels only."
    )
    beta2: float = Field(default=0.99, ge=0, le=0.999999, description="AdamW's decay of the second moment.")
    # A limit of 0 would remove every gradient.
    clip_norm: float = Field(
        default=1.0, ge=1e-6, description="Largest norm of the gradient; longer ones are scaled down."
    )
    ema: float = Field(default=0.999, ge=0, le=1, description="Decay per step of the averaged (EMA) weights.")
    optimizer: Literal["adamw", "adamw8bit", "muon"] = Field(
        default="adamw",
        description="AdamW; AdamW with moments of 8 bits, which needs bitsandbytes and a GPU that it supports; or Muon "
        "for inner matrices, with AdamW for the rest: steps cost a little more and take less of them.",
    )
    compile: bool = Field(default=False, description="Compile the network with torch.compile.")
    workers: int = Field(
        default=1, ge=0, le=1024, description="Processes that load data; 0 loads in the training process."
    )
    save_minutes: float = Field(default=5.0, ge=0, description="Minutes between saved states.")
    sample_minutes: float = Field(default=10.0, ge=0, description="Minutes between sample images.")


class Sampling(Table):
    """The sampling defaults of the finished stage. They do not affect its training."""

    sampler: Annotated[str, AfterValidator(_check_sampler)] = Field(default="ddim", description="Name of the sampler.")
    steps: int = Field(default=25, ge=1, le=1000, description="Denoising steps.")
    guidance: float = Field(default=1.0, ge=0, le=1000, description="Classifier-free guidance scale; 1 is none.")


class AutoregressiveSampling(Table):
    """The sampling defaults of the finished autoregressive prior. They do not affect its training."""

    guidance: float = Field(default=1.0, ge=0, le=1000, description="Classifier-free guidance scale; 1 is none.")
    temperature: float = Field(
        default=1.0, ge=0, le=100, description="Divides the logits of the codes; 0 takes the most probable ones."
    )
    top_p: float = Field(
        default=1.0, ge=0, le=1, description="Probability of the codes that are sampled from, most probable first."
    )
    dot_from: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Quantile of the dot products of text and image embedding above which one is drawn (0.5 in the "
        "paper).",
    )


class StageTable(Table):
    """The tables that every stage has. CLIP has no others."""

    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    fit: Fit = Fit()


class PriorTable(StageTable):
    """[prior]"""

    task: PriorOptions = PriorOptions()
    sampling: Sampling = Sampling()


class AutoregressivePriorTable(StageTable):
    """[autoregressive_prior]"""

    task: AutoregressivePriorOptions = AutoregressivePriorOptions()
    sampling: AutoregressiveSampling = AutoregressiveSampling()


class DecoderTable(StageTable):
    """[decoder]"""

    task: DecoderOptions = DecoderOptions()
    sampling: Sampling = Sampling()


class InpaintingDecoderTable(Table):
    """[inpainting_decoder]"""

    data: dict[str, Any] = {}
    task: InpaintingDecoderOptions = InpaintingDecoderOptions()
    fit: Fit = Fit()
    sampling: Sampling = Sampling()


class UpsamplerTable(StageTable):
    """[upsampler]"""

    task: UpsamplerOptions = UpsamplerOptions()
    sampling: Sampling = Sampling()


class SecondUpsamplerTable(StageTable):
    """[second_upsampler]: sampled in one step, so it has no sampling defaults."""

    task: SecondUpsamplerOptions = SecondUpsamplerOptions()


class FineTuningFit(Fit):
    """The optimisation of a fine-tuning. These defaults differ from those of a training from the beginning."""

    batch_size: int = Field(default=4, ge=1, description="Images per step.")
    lr: float = Field(
        default=1e-4, ge=0, le=1, description="Peak learning rate; without LoRA, a tenth of it is the default."
    )
    ema: float = Field(default=0.99, ge=0, le=1, description="Decay per step of the averaged (EMA) weights.")


class FineTuningTable(FineTuningOptions):
    """[finetune]"""

    fit: FineTuningFit = FineTuningFit()

    def fit_for(self, lora: bool) -> Fit:
        """The optimisation. lora: whether LoRA layers are trained, which take a higher learning rate."""
        if lora or "lr" in self.fit.model_fields_set:
            return self.fit
        return self.fit.model_copy(update={"lr": self.fit.lr / 10})


class DistillationFit(Fit):
    """The optimisation of a distillation."""

    batch_size: int = Field(default=4, ge=1, description="Prompts per step, each at several noise levels (`levels`).")
    lr: float = Field(default=1e-4, ge=0, le=1, description="Peak learning rate of AdamW.")
    ema: float = Field(default=0.99, ge=0, le=1, description="Decay per step of the averaged (EMA) weights.")


class DistillationTable(DistillationOptions):
    """[distill]"""

    fit: DistillationFit = DistillationFit()


class RecipeFile(Table):
    """A whole recipe file."""

    name: str | None = Field(default=None, description="Name of the model; by default, the file's.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the initial weights, the data and the noise.")
    data: dict[str, Any]
    clip: StageTable | None = None
    prior: PriorTable | None = None
    autoregressive_prior: AutoregressivePriorTable | None = None
    decoder: DecoderTable | None = None
    inpainting_decoder: InpaintingDecoderTable | None = None
    upsampler: UpsamplerTable | None = None
    second_upsampler: SecondUpsamplerTable | None = None
    finetune: FineTuningTable = FineTuningTable()
    distill: DistillationTable = DistillationTable()
