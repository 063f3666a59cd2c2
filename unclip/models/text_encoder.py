"""The decoder's own text encoder."""

from dataclasses import asdict, dataclass

from open_clip.transformer import TextTransformer
from torch import nn

from unclip.models.text import TextEncoding


@dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes of a decoder's own text encoder. It speaks in as many dimensions as CLIP, in whose place it steps."""

    width: int = 160
    layers: int = 4
    heads: int = 5
    context_length: int = 32
    vocab_size: int = 49408

    def to_dict(self) -> dict:
        return asdict(self)


class TextEncoder(nn.Module):
    """A text encoder that is trained along with the decoder, as GLIDE's is: what tells two objects apart matters to it.

    CLIP's has learned to tell captions apart, for which a few directions of its states do.
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = config
        self.transformer = TextTransformer(
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            output_dim=None,
            output_tokens=True,
        )

    def forward(self, text: TextEncoding) -> TextEncoding:
        """The same text with this encoder's embedding and states in the place of CLIP's."""
        embed, states = self.transformer(text.tokens)
        return text._replace(embed=embed, states=states)
