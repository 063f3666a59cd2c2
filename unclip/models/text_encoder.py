"""A text encoder that belongs to the decoder."""

from dataclasses import asdict, dataclass

from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

from unclip.models.cpu.batch_invariance import use_batch_invariant_layers
from unclip.models.text import TextEncoding, prompt_mask


@dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes of a decoder's text encoder. One trained with the decoder has the width of CLIP's embeddings."""

    width: int = 160
    layers: int = 4
    heads: int = 5
    context_length: int = 32  # tokens
    vocab_size: int = 49408
    mlp_ratio: float = 4.0
    quick_gelu: bool = False

    def to_dict(self) -> dict:
        return asdict(self)


class TransformerTextEncoder(nn.Module):
    """A transformer trained jointly with the decoder, as in GLIDE (Nichol et al. 2021, arXiv:2112.10741).

    CLIP learns to tell captions apart, for which a few directions of its states suffice. An encoder trained by the
    decoder's loss keeps which attribute belongs to which object. Stable unCLIP's decoder has another CLIP's text
    encoder, without its projection.
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
            mlp_ratio=config.mlp_ratio,
            output_dim=None,
            output_tokens=True,
            act_layer=QuickGELU if config.quick_gelu else nn.GELU,
        )
        use_batch_invariant_layers(self)

    def encode_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> TextEncoding:
        """Token ids and mask `b n` -> embeddings `b d`, states `b n d`. None: the mask ends at the end of the text."""
        embed, states = self.transformer(tokens)  # b d, b n d
        return TextEncoding(embed, states, prompt_mask(tokens) if mask is None else mask, tokens)

    def forward(self, text: TextEncoding) -> TextEncoding:
        """The same prompts with this encoder's embedding and states in place of CLIP's."""
        embed, states = self.transformer(text.tokens)  # b d, b n d
        return text._replace(embed=embed, states=states)
