"""Settings in a checkpoint's JSON files, validated. Each error is one line with the file, the key and the fix."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    StrictInt,
    StrictStr,
    ValidationError,
)

from unclip.checkpoints.index import FIX
from unclip.diffusion.codecs import Codec, codec_from_config
from unclip.diffusion.sampler_names import check_sampler
from unclip.errors import CheckpointError
from unclip.requests.fields import MAX_GUIDANCE, MAX_STEPS, MAX_TEMPERATURE
from unclip.requests.values import integer, number, parse_size, show


class Settings(BaseModel):
    """Base of all settings. Keys that are not used here are ignored: other libraries write more of them."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


def _codec(value: Any) -> Codec:
    if not isinstance(value, str | dict):
        raise ValueError(f"codec must be a name or a table, not {show(value)}")
    try:
        return codec_from_config(value)
    except TypeError:  # a type that is neither text nor hashable
        raise ValueError(f"codec is {show(value)}, which is not a codec") from None


def _difference(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"difference must be true or false, not {show(value)}")
    return value


def _no_difference(value: Any) -> bool:
    if _difference(value):
        raise ValueError("difference must be false: only an upsampler predicts differences")
    return value


class StageSettings(Settings):
    """A stage in the "stages" table of a native model_index.json: its sampling defaults.

    sampler     name from diffusion.sampler_names.SAMPLER_NAMES
    steps       denoising steps
    guidance    classifier-free guidance scale; 1 is no guidance
    difference  whether the network predicts x0 minus the enlarged image (see `Upsampler`)
    """

    sampler: Annotated[str, BeforeValidator(check_sampler)]
    steps: Annotated[int, BeforeValidator(lambda value: integer("steps", value, 1, MAX_STEPS))]
    guidance: Annotated[float, BeforeValidator(lambda value: number("guidance", value, MAX_GUIDANCE))]
    difference: Annotated[bool, BeforeValidator(_no_difference)] = False


class AutoregressiveSettings(Settings):
    """The autoregressive prior in the "stages" table: its sampling defaults (see `AutoregressivePrior`)."""

    guidance: Annotated[float, BeforeValidator(lambda value: number("guidance", value, MAX_GUIDANCE))] = 1.0
    temperature: Annotated[float, BeforeValidator(lambda value: number("temperature", value, MAX_TEMPERATURE))] = 1.0
    top_p: Annotated[float, BeforeValidator(lambda value: number("top_p", value, 1))] = 1.0
    dot_from: Annotated[float, BeforeValidator(lambda value: number("dot_from", value, 1))] = 0.5


class ImageStageSettings(StageSettings):
    """A stage that samples images.

    size   (width, height) of its images in pixels
    codec  between pixels and the space that it denoises
    """

    size: Annotated[tuple[int, int], BeforeValidator(parse_size)]
    codec: Annotated[Codec, SkipValidation, BeforeValidator(_codec)]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """c, h, w in the codec's space. Raises RequestError if the size does not fit the codec."""
        width, height = self.size
        return self.codec.latent_shape(height, width)


class DecoderSettings(ImageStageSettings):
    """The decoder. shown_above: CLIP similarity from which an image counts as showing its prompt, 0 .. 1."""

    shown_above: Annotated[float, BeforeValidator(lambda value: number("shown_above", value, 1))] = 1.0


class InpaintingDecoderSettings(StageSettings):
    """The inpainting decoder, whose size and codec are the decoder's. shown_above: as in `DecoderSettings`."""

    shown_above: Annotated[float, BeforeValidator(lambda value: number("shown_above", value, 1))] = 1.0


class UpsamplerSettings(ImageStageSettings):
    """The upsampler."""

    difference: Annotated[bool, BeforeValidator(_difference)] = False


class SecondUpsamplerSettings(ImageStageSettings):
    """The second upsampler, a feed-forward network: its steps and guidance are 1."""

    steps: Annotated[int, BeforeValidator(lambda value: integer("steps", value, 1, 1))] = 1
    guidance: Annotated[float, BeforeValidator(lambda value: number("guidance", value, 1))] = 1.0


class Vocabulary(Settings):
    """vocabulary.json: the words of the training captions, and the styles of the sprites in the training scenes."""

    words: list[StrictStr]
    styles: list[StrictStr] = []


def _only(key: str, *supported: str | float) -> BeforeValidator:
    """A validator that accepts the supported values only."""

    def check(value: Any) -> Any:
        if value not in supported:
            raise ValueError(f"{key} is {show(value)}, and only {' or '.join(map(str, supported))} is supported")
        return value

    return BeforeValidator(check)


PositiveInt = Annotated[StrictInt, Field(ge=1)]


class ClipEncoderSettings(Settings):
    """The sizes that the configs of transformers' two CLIP encoders share, with transformers' defaults."""

    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_attention_heads: PositiveInt
    projection_dim: PositiveInt = 512
    num_hidden_layers: PositiveInt = 12
    hidden_act: Annotated[str, _only("hidden_act", "quick_gelu", "gelu")] = "quick_gelu"
    layer_norm_eps: Annotated[float, _only("layer_norm_eps", 1e-5)] = 1e-5


class ClipTextSettings(ClipEncoderSettings):
    """config.json of transformers' CLIPTextModelWithProjection."""

    hidden_size: PositiveInt = 512
    intermediate_size: PositiveInt = 2048
    num_attention_heads: PositiveInt = 8
    max_position_embeddings: StrictInt = Field(default=77, ge=3)  # start and end of a text, and a token
    vocab_size: StrictInt = Field(default=49408, ge=49408)  # of CLIP's tokenizer


class ClipVisionSettings(ClipEncoderSettings):
    """config.json of transformers' CLIPVisionModelWithProjection."""

    hidden_size: PositiveInt = 768
    intermediate_size: PositiveInt = 3072
    num_attention_heads: PositiveInt = 12
    num_channels: PositiveInt = 3
    image_size: PositiveInt = 224
    patch_size: PositiveInt = 32


class XlmRobertaSettings(Settings):
    """config.json of Kandinsky 2.1's MultilingualCLIP, with the defaults of its class."""

    hidden_size: PositiveInt = 768
    intermediate_size: PositiveInt = 3072
    num_attention_heads: PositiveInt = 12
    num_hidden_layers: PositiveInt = 12
    vocab_size: PositiveInt = 30522
    max_position_embeddings: PositiveInt = 512
    type_vocab_size: PositiveInt = 2
    transformerDimensions: PositiveInt = 1024
    numDims: PositiveInt = 768
    pad_token_id: StrictInt = Field(default=1, ge=0)
    layer_norm_eps: float = Field(default=1e-12, gt=0)
    hidden_act: Annotated[str, _only("hidden_act", "gelu")] = "gelu"
    position_embedding_type: Annotated[str, _only("position_embedding_type", "absolute")] = "absolute"


Model = TypeVar("Model", bound=Settings)


def validate(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """The settings in `values`. where: the file, and the entry in it, for error messages. Raises CheckpointError."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{where}: {_first_problem(error)}; {FIX}") from None


def _first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, on one line with the key and its value."""
    found = error.errors(include_url=False)[0]
    key = ".".join(map(str, found["loc"]))
    if found["type"] == "missing":
        return f"{key} is missing"
    if found["type"] == "value_error":  # raised by a check, whose message names the key
        return _cut(str(found.get("ctx", {}).get("error")))
    reason = found["msg"].removeprefix("Input should be ")
    return f"{key} is {show(found['input'])}, and should be {reason}"


def _cut(text: str) -> str:
    """At most 300 characters of a text, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."
