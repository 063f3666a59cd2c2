"""A text encoder that belongs to the decoder and is trained with it."""

from dataclasses import asdict, dataclass

from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from unclip.models.text import TextEncoding, prompt_mask


@dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes of a decoder's text encoder. It replaces CLIP's text encoder, so `width` is CLIP's embedding dimension."""

    width: int = 160
    layers: int = 4
    heads: int = 5
    context_length: int = 32  # tokens
    vocab_size: int = 49408

    def to_dict(self) -> dict:
        return asdict(self)


class TransformerTextEncoder(nn.Module):
    """A transformer trained jointly with the decoder, as in GLIDE (Nichol et al. 2021, arXiv:2112.10741).

    CLIP learns to tell captions apart, for which a few directions of its states suffice. An encoder trained by the
    decoder's loss keeps which attribute belongs to which object.
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

    def encode_tokens(self, tokens: Tensor) -> TextEncoding:
        """Token ids `b n` -> embeddings `b d`, states `b n d`, mask `b n`."""
        embed, states = self.transformer(tokens)  # b d, b n d
        return TextEncoding(embed, states, prompt_mask(tokens), tokens)

    def forward(self, text: TextEncoding) -> TextEncoding:
        """The same prompts with this encoder's embedding and states in place of CLIP's."""
        embed, states = self.transformer(text.tokens)  # b d, b n d
        return text._replace(embed=embed, states=states)
