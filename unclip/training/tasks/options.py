"""The `task` tables of a recipe: what each stage learns to predict, and how its training examples are made."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PlainValidator

from unclip.requests.fields import MAX_GUIDANCE
from unclip.training.tables import Table

# The loss is the error of the velocity, so it is an error of x0. At the last timesteps an error of a predicted noise
# counts 20,000-fold in x0, which would leave nothing else to learn: no stage predicts the noise.
DecoderPrediction = Literal["sample", "v_prediction"]
UpsamplerPrediction = Literal["difference", "sample", "v_prediction"]
PREDICTIONS: dict[str, tuple[str, ...]] = {
    "prior": ("sample",),
    "autoregressive_prior": ("codes",),
    "decoder": get_args(DecoderPrediction),
    "upsampler": get_args(UpsamplerPrediction),
    "second_upsampler": ("sample",),
}
"""The prediction targets that the network of each stage supports."""

NOISE_SHIFT = (
    "Mean of the log noise-to-signal ratio of the sampled timesteps, -5 .. 5 (arXiv:2403.03206); larger values train "
    "more at high noise, where the layout is decided."
)
PATCH = "Side in pixels of the patches that pixel unshuffling moves into channels; `size` is a multiple of it."


def _check_scale(value: Any) -> float | tuple[float, float] | None:
    """A guidance scale, or its lowest and highest value."""
    numbers = value if isinstance(value, tuple) else (value, value)
    if value is None:
        return None
    valid = all(type(each) in (int, float) and 0 <= each <= MAX_GUIDANCE for each in numbers)
    if not valid or len(numbers) != 2 or (isinstance(value, tuple) and not numbers[0] < numbers[1]):
        raise ValueError(f"a number from 0 to {MAX_GUIDANCE}, or [low, high] of two such numbers")
    return (float(numbers[0]), float(numbers[1])) if isinstance(value, tuple) else float(value)


GuidanceScale = Annotated[float | tuple[float, float] | None, PlainValidator(_check_scale)]


class TaskOptions(Table):
    """The options of a stage's training task."""


class PriorOptions(TaskOptions):
    """The options of the prior's task."""

    text_drop: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Fraction of captions left out, for classifier-free guidance (10% in the paper).",
    )


class AutoregressivePriorOptions(PriorOptions):
    """The options of the autoregressive prior's task."""

    variance: float = Field(
        default=0.99,
        ge=0.01,
        le=1,
        description="Fraction of the embeddings' variance that the principal components hold, unless the table model "
        "has their number, `components`.",
    )


class ConditioningOptions(TaskOptions):
    """The options that the tasks of the decoder and of the inpainting decoder share.

    Fractions are 0 .. 1; `training.augmentation` shows the augmentations.
    """

    noise_shift: float = Field(default=1.0, ge=-5, le=5, description=NOISE_SHIFT)
    embed_drop: float = Field(
        default=0.1, ge=0, le=1, description="Fraction of image embeddings left out (10% in the paper, section 2.1)."
    )
    text_drop: float = Field(default=0.5, ge=0, le=1, description="Fraction of captions left out (50% in the paper).")
    known: float = Field(
        default=0.2, ge=0, le=1, description="Fraction of the examples in which a part is known (GLIDE, section 4.2)."
    )
    moved: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the examples with a known part that become outpainting windows: the image is shifted "
        "towards the known side, or replaced as `beside` and `views` say. Only for images with a flat border. Without "
        "it, a decoder of centred objects generates them in the centre again, cut off by the known part.",
    )
    beside: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the windows whose known part comes from another image with the same border colour, "
        "where the batch has one. Without it, the decoder assumes that an object it does not see lies outside the "
        "window, and never adds one.",
    )
    views: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the windows that become context views, where that is possible: a whole original made "
        "smaller, with the area around it to generate. Without it, outpainting repeats an object in several windows.",
    )
    drafts: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the examples without a known part that show a shifted part of the image, at the noise "
        "levels of a draft only: windows of a larger canvas that continue a draft of it.",
    )
    shown_above: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="CLIP similarity from which an image to outpaint already shows the prompt, so that nothing is "
        "added; stored with the finished model. At 1, the default, something is always added.",
    )
    pooled_drop: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the examples whose time embedding lacks the pooled text, so that the tokens carry "
        "it. The pooled text is the same everywhere in the image: a decoder that gets all from it never learns to "
        "attend, and cannot tell which of two objects goes where.",
    )
    layout_drop: float = Field(
        default=0.1, ge=0, le=1, description="Fraction of the layouts left open, where the data have `layouts`."
    )
    contrast_weight: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Power with which images of little contrast count more, such as an orange object on an orange "
        "background, whose squared error is small however badly it is drawn; 0 weighs all images alike.",
    )


class DecoderOptions(ConditioningOptions):
    """The options of the decoder's task."""

    prediction: DecoderPrediction = Field(
        default="sample", description="Output of the network: x0 (sample) or the velocity."
    )
    patch: int = Field(default=4, ge=1, le=64, description=PATCH)
    own_text: bool = Field(
        default=True,
        description="Train a text encoder along with the decoder, initialised from CLIP's (as GLIDE does).",
    )


class InpaintingDecoderOptions(ConditioningOptions):
    """The options of the inpainting decoder's task. What it predicts, and in which patches, is the decoder's."""

    known: float = Field(default=0.75, ge=0, le=1, description="Fraction of the examples in which a part is known.")
    layout_drop: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Fraction of the layouts left open, where the data have `layouts`. Edits leave all of them open, "
        "because known pixels place the objects.",
    )
    trained: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Parts of the decoder that are trained, by the beginnings of their parameters' names, such as "
        '"conv_in", "up_blocks.1" or "text_proj"; by default, all but the text encoder. The finished model stores '
        "these, and shares all others with the decoder.",
    )


class UpsamplerOptions(TaskOptions):
    """The options of the upsampler's task.

    The small image is degraded in training, because the decoder's images are not perfect (unCLIP, section 2.1, after
    SR3 and Cascaded Diffusion).
    """

    size: int = Field(default=256, ge=1, le=4096, description="Side of the large image, in pixels.")
    small: int = Field(default=64, ge=1, le=4096, description="Side of the small image, in pixels.")
    crop: int = Field(default=128, ge=1, le=4096, description="Side of the random crop of the large image, in pixels.")
    prediction: UpsamplerPrediction = Field(
        default="difference",
        description="Output of the network: x0 minus the enlarged small image (difference), x0 (sample) or the "
        "velocity. A difference starts from the enlarged image and need not learn to copy it.",
    )
    noise_shift: float = Field(default=0.0, ge=-5, le=5, description=NOISE_SHIFT)
    patch: int = Field(default=4, ge=1, le=64, description=PATCH)
    blur: float = Field(
        default=0.6, ge=0, le=2, description="Largest standard deviation of the blur, in pixels of the small image."
    )
    noise: float = Field(
        default=0.06, ge=0, le=1, description="Largest standard deviation of the noise on pixels in [-1, 1]."
    )
    redrawn: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the small images that the run's decoder has drawn anew: noised to a random level, and "
        "denoised. The upsampler then learns to mend what this decoder does wrong.",
    )
    redraw_steps: int = Field(default=8, ge=2, le=100, description="Denoising steps from pure noise of a redrawing.")
    unrolled: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the batches that are upsampled in the few steps of the finished model, and trained on "
        "the absolute error of every step. Edges become sharper and flat areas flatter.",
    )


class SecondUpsamplerOptions(TaskOptions):
    """The options of the second upsampler's task: a feed-forward network that restores enlarged images.

    Its small images are true ones, or what the first upsampler makes of images like the decoder's; both are degraded.
    """

    size: int = Field(default=1024, ge=1, le=4096, description="Side of the large image, in pixels.")
    small: int = Field(default=256, ge=1, le=4096, description="Side of the first upsampler's images, in pixels.")
    smallest: int = Field(default=64, ge=1, le=4096, description="Side of the decoder's images, in pixels.")
    crop: int = Field(default=128, ge=1, le=4096, description="Side of the random crop of the large image, in pixels.")
    blur: float = Field(
        default=0.8,
        ge=0,
        le=2,
        description="Largest standard deviation of the blur of small images, in their pixels.",
    )
    noise: float = Field(
        default=0.02, ge=0, le=1, description="Largest standard deviation of the noise on small images, in [-1, 1]."
    )
    upsampled: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Fraction of the small images that the run's first upsampler makes of images like the decoder's.",
    )
    patch: int = Field(
        default=4, ge=1, le=64, description="Side of the decoder's patches, in pixels of its images, for `shift`."
    )
    shift: float = Field(
        default=0.2,
        ge=0,
        le=4,
        description="Largest standard deviation of the offset of a patch of the decoder's image, in its pixels: a "
        "decoder places each patch for itself, which leaves edges ragged. Beyond a fraction of a pixel, nothing tells "
        "where the edge was, and sharpening is learned slowly.",
    )
    tint: float = Field(
        default=0.03, ge=0, le=1, description="The same of the colour of a patch, on pixels in [-1, 1]."
    )
    grain: float = Field(
        default=0.04,
        ge=0,
        le=1,
        description="Largest standard deviation of the noise on images like the decoder's, on pixels in [-1, 1].",
    )


class FineTuningOptions(TaskOptions):
    """The options of fine-tuning a prior or a decoder of another model. Its sizes are those of that model."""

    size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Side of a decoder's training images in pixels; by default, the size it generates.",
    )
    drop: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Fraction of the examples without text and embedding, for classifier-free guidance.",
    )
    alpha: float | None = Field(
        default=None,
        ge=0.001,
        le=100_000,
        description="Scale of the LoRA layers, which are multiplied by alpha / rank; by default, the rank.",
    )
    targets: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Ends of the names of the layers that LoRA changes, such as to_q or conv1; by default, those of "
        "the attention.",
    )
    checkpointing: bool = Field(
        default=True,
        description="Compute activations again in the backward pass: a fraction of the memory, a third more time.",
    )
    samples: int = Field(default=4, ge=0, le=16, description="Images of a decoder's sample grid; 0 makes none.")
    sample_steps: int = Field(default=25, ge=2, le=1000, description="Denoising steps of the sample grid.")


class DistillationOptions(TaskOptions):
    """The options of distilling a stage of another model. Its sizes are those of that model."""

    guidance: GuidanceScale = Field(
        default=None,
        description="Guidance scale of the teacher that the network learns; [low, high] makes the scale an input of a "
        "decoder's network. By default, the teacher's own scale.",
    )
    source: Literal["teacher", "images"] = Field(
        default="teacher",
        description="Samples to noise and denoise: generated by the teacher for the captions, or the training images "
        "themselves, which takes less time.",
    )
    generation_steps: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Denoising steps in which the teacher generates samples; by default, each stage's own.",
    )
    levels: int = Field(
        default=8, ge=1, le=1000, description="Noise levels per sample and step, since samples take time to generate."
    )
    drop: float = Field(default=0.1, ge=0, le=1, description="Fraction of the examples without text.")
    known: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Fraction of the examples in which a part is known, for a decoder that edits too: one with inputs "
        "for inpainting, in a model without an inpainting decoder.",
    )
    segments: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Consistency only: parts of the noise levels, each crossed in one step of ddim. With 1, the "
        "finished network samples in any few steps of the sampler consistency.",
    )
    teacher_steps: int = Field(
        default=32,
        ge=1,
        le=999,
        description="Consistency only: DDIM steps of the teacher over all noise levels; a multiple of segments.",
    )
    sample_steps: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Default denoising steps of the finished model. If not set: the teacher's; for consistency, "
        "the number of segments, or 4 with a single segment.",
    )
    checkpointing: bool = Field(
        default=False,
        description="Compute activations again in the backward pass: a fraction of the memory, a third more time.",
    )
    samples: int = Field(default=4, ge=0, le=16, description="Images of the sample grid; 0 makes none.")


def prediction_of(options: TaskOptions) -> str:
    """The prediction target of a stage other than CLIP."""
    if isinstance(options, AutoregressivePriorOptions):
        return "codes"
    return options.prediction if isinstance(options, DecoderOptions | UpsamplerOptions) else "sample"
