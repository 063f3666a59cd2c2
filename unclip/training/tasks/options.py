"""What a recipe's `task` tables may say, and what must agree between the tables of two stages."""

from dataclasses import dataclass

from unclip.errors import RecipeError
from unclip.training.recipe import Recipe, StageRecipe, build, check_type, one_of, within

# The loss is the error of the velocity, hence of x0. What is wrong with a predicted noise counts 20,000-fold in x0 at
# the last timesteps: nothing would be learned.
PREDICTIONS = {
    "prior": ("sample",),
    "decoder": ("sample", "v_prediction"),
    "upsampler": ("difference", "sample", "v_prediction"),
}


@dataclass(frozen=True)
class PriorOptions:
    """text_drop: how often the text is left out, for classifier-free guidance (10% in the paper)."""

    text_drop: float = within(0.1, 0, 1)


@dataclass(frozen=True)
class DecoderOptions:
    """What is left out in training: the embedding and the text (10% and 50% in the paper, section 2.1), and how many
    of the samples show a part of the picture as known (GLIDE, section 4.2); the codec's patch, in pixels.
    moved: how many of those with a known part have it on one side, and the picture, in half of them, moved out of the
    frame there, as the windows of an outpainting see it (`windows.random_windows`): for pictures whose border is flat.
    Else a decoder whose objects stand in the middle draws them there again, cut in half by what is known. Windows in
    which there is nothing more to paint have no text and no embedding, and the others always have a text. With them, of
    other pictures with a known part too, half of those without more to paint have neither, and the others one or both.
    shown_above: what goes with that into the finished model: from which CLIP similarity on a picture that is widened is
    taken to show already what the prompt names, and nothing more is painted. At 1, the default, never.
    beside: how many of these, where it can be, are known in another picture of the batch instead, one with a border of
    the same colour (`windows.pictures_beside`). Else a decoder takes what it is not shown to lie outside, and paints
    nothing that a prompt adds.
    views: how many of the moved ones, where it can be, show all of an original made smaller, and what is around it
    (`windows.random_views`), as an outpainting sees it before it paints its windows. Then nothing is painted twice.
    drafts: how many of those without a known part are as a window of a larger picture has them, anywhere, and only as
    noised as a draft of it is (`windows.with_drafts`).
    own_text: the decoder has a text encoder of its own, which starts as CLIP's and is trained along, as GLIDE's is.
    pooled_drop: how often the time embedding does not hear of the text, so that the tokens must say it. A decoder that
    is told all by the pooled state, the same everywhere in the picture, never learns to attend: it knows which two
    objects are wanted, and cannot tell which goes where."""

    prediction: str = one_of("sample", PREDICTIONS["decoder"])
    noise_shift: float = within(1.0, -5, 5)
    patch: int = within(4, 1, 64)
    embed_drop: float = within(0.1, 0, 1)
    text_drop: float = within(0.5, 0, 1)
    known: float = within(0.2, 0, 1)
    moved: float = within(0.0, 0, 1)
    beside: float = within(0.0, 0, 1)
    views: float = within(0.0, 0, 1)
    drafts: float = within(0.0, 0, 1)
    shown_above: float = within(1.0, 0, 1)
    pooled_drop: float = within(0.0, 0, 1)
    own_text: bool = True


@dataclass(frozen=True)
class UpsamplerOptions:
    """The sizes in pixels, and how the small picture is spoiled: the decoder's own pictures are not perfect
    (unCLIP, section 2.1, after SR3 and Cascaded Diffusion). blur and noise are the largest standard deviations.
    prediction: "difference" is x0 less the enlarged small picture, with which an upsampler begins, and which it need
    not learn to repeat."""

    size: int = within(256, 1, 4096)
    small: int = within(64, 1, 4096)
    crop: int = within(128, 1, 4096)
    prediction: str = one_of("difference", PREDICTIONS["upsampler"])
    noise_shift: float = within(0.0, -5, 5)
    patch: int = within(4, 1, 64)
    blur: float = within(0.6, 0, 2)
    noise: float = within(0.06, 0, 1)


def prediction(recipe: Recipe, stage: str) -> str:
    """What the network of a recipe's stage, other than CLIP, is to say. Raises RecipeError for what it cannot."""
    if stage == "prior":
        return "sample"
    options = {"decoder": DecoderOptions, "upsampler": UpsamplerOptions}[stage]
    return build(options, recipe.stage(stage).task, f"{recipe.source} [{stage}.task]").prediction


def decoder_size(recipe: StageRecipe) -> int:
    """The side, in pixels, of the pictures that the decoder of a recipe draws."""
    size = recipe.model.get("size", 64)
    check_type(f"{recipe.source} [decoder.model]", "size", size, int)
    return size


def check_sizes(recipe: Recipe) -> None:
    """Raise RecipeError unless the upsampler, where there are both, takes pictures of the size the decoder draws."""
    if not {"decoder", "upsampler"} <= recipe.stages.keys():
        return
    size = decoder_size(recipe.stages["decoder"])
    small = build(UpsamplerOptions, recipe.stages["upsampler"].task, f"{recipe.source} [upsampler.task]").small
    if small != size:
        raise RecipeError(
            f"{recipe.source}: [upsampler.task] small = {small} must equal [decoder.model] size = {size}, "
            "the pictures that are handed on"
        )
