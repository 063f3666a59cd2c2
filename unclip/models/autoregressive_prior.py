"""The autoregressive prior: text -> the codes of a CLIP image embedding, one after another.

Ramesh et al. 2022 (arXiv:2204.06125), section 2.2: the embedding is reduced to its principal components, each component
is quantised into buckets, and a causal transformer predicts the bucket of each component from those before it, the text
tokens, the text embedding and the quantised dot product of text and image embedding.
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from unclip.models.clip import ClipConfig
from unclip.models.cpu.batch_invariance import batch_invariant_linear, use_batch_invariant_layers
from unclip.models.text import TextEncoding

MAX_BUCKETS = 8192


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Sizes of an autoregressive prior.

    embed_dim       of CLIP's embeddings
    text_width      of CLIP's token states
    context_length  text tokens
    components      number of principal components, the largest variance first; each has one code
    buckets         number of values of a code, and of the dot product; at most MAX_BUCKETS
    waves           number of cosines that represent a bucket in the network (see `bucket_waves`)
    """

    embed_dim: int = 160
    text_width: int = 160
    context_length: int = 32
    components: int = 18
    buckets: int = 1024
    waves: int = 128
    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        for name, low in (("components", 1), ("buckets", 2), ("waves", 1), ("width", 2), ("layers", 1), ("heads", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}, and should be {low} or more")
        if self.buckets > MAX_BUCKETS or self.waves > self.buckets:
            raise ValueError(f"{self.waves} waves of {self.buckets} buckets: at most {MAX_BUCKETS}, and no more waves")
        if self.components > self.embed_dim:
            raise ValueError(f"components is {self.components}, more than the {self.embed_dim} of an embedding")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width is {self.width}, and should be an even multiple of heads, {self.heads}")

    def to_dict(self) -> dict:
        return asdict(self)


def clip_sizes(clip: ClipConfig) -> dict[str, int]:
    """The settings of an autoregressive prior that follow from its CLIP."""
    return {
        "embed_dim": clip.embed_dim,
        "text_width": clip.text_width,
        "context_length": clip.context_length,
    }


class Cache:
    """The keys and values of the tokens that every layer has seen, so that each token is computed once.

    length: tokens seen so far. A cache serves one batch, from its first tokens to its last.
    """

    def __init__(self, layers: int, most: int):
        self.length = 0
        self._most = most
        self._stored: list[Tensor | None] = [None] * layers  # each 2 b h most c

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of new tokens, `b h t c`; return those of all tokens so far, `b h n c`."""
        stored = self._stored[layer]
        if stored is None:
            b, h, _, c = keys.shape
            stored = self._stored[layer] = keys.new_empty(2, b, h, self._most, c)
        end = self.length + keys.shape[2]
        stored[0, :, :, self.length : end], stored[1, :, :, self.length : end] = keys, values
        return stored[0, :, :, :end], stored[1, :, :, :end]


class AutoregressiveTransformer(nn.Module):
    """The causal transformer, and the quantisation of embeddings into codes (`encode`, `decode`).

    The order of its tokens: the text's tokens, the text embedding, the dot product, the codes.
    """

    waves: Tensor
    edges: Tensor
    dot_edges: Tensor

    def __init__(self, config: AutoregressiveConfig):
        super().__init__()
        self.config = config
        width, prefix = config.width, config.context_length + 2
        self.text_states = nn.Linear(config.text_width, width)
        self.text_embed = nn.Linear(config.embed_dim, width)
        self.code = nn.Linear(config.waves, width)  # of the dot product as well
        self.positions = nn.Parameter(torch.randn(prefix + config.components - 1, width) * 0.2)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.waves)
        self.register_buffer("waves", bucket_waves(config.buckets, config.waves), persistent=False)  # m w

        # Measured, not trained: see `fit_quantiser`. Weight: the principal components. Bias: the mean embedding.
        self.components = nn.Linear(config.components, config.embed_dim).requires_grad_(False)
        edges = torch.linspace(-1, 1, config.buckets + 1, device="cpu")  # m+1, as in `bucket_waves`
        self.register_buffer("edges", torch.empty(config.components, config.buckets + 1).copy_(edges))  # k m+1
        self.register_buffer("dot_edges", edges)
        use_batch_invariant_layers(self)

    @property
    def prefix(self) -> int:
        """Number of tokens before the first code."""
        return self.config.context_length + 2

    def condition(self, text: TextEncoding) -> dict[str, Tensor]:
        """The conditioning of `forward` for a batch of prompts."""
        return {"text_embed": text.embed, "text_states": text.states, "text_mask": text.mask}

    def new_cache(self) -> Cache:
        """An empty cache for `forward`."""
        return Cache(self.config.layers, len(self.positions))

    def forward(
        self,
        text_embed: Tensor,
        text_states: Tensor,
        text_mask: Tensor,
        dots: Tensor,
        codes: Tensor,
        cache: Cache | None = None,
    ) -> Tensor:
        """The logits `b j+1 m` of the next code, after the dot product and after each of the first codes.

        text_embed, text_states, text_mask: of prompts, `b d`, `b n d` and bool `b n`. dots: buckets of the dot product,
        int64 `b`. codes: the first j < k codes, int64 `b j`. cache: the tokens of earlier calls; the logits are then
        those after the new tokens only.
        """
        seen = 0 if cache is None else cache.length
        if seen == 0:
            dtype = self.head.weight.dtype  # CLIP may be in a higher precision
            x = torch.cat(
                [
                    self.text_states(text_states.to(dtype)),
                    self.text_embed(text_embed.to(dtype))[:, None],
                    self.read(dots[:, None]),
                    self.read(codes),
                ],
                dim=1,
            )  # b t c
        else:
            x = self.read(codes[:, seen - self.prefix :])
        end = seen + x.shape[1]
        x = x + self.positions[seen:end]
        mask = attention_mask(text_mask, seen, end)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, layer, cache)
        if cache is not None:
            cache.length = end
        weights = self.head(self.norm(x[:, max(0, self.prefix - 1 - seen) :]))  # b j+1 w
        return batch_invariant_linear(weights.to(self.waves.dtype), self.waves)

    def read(self, codes: Tensor) -> Tensor:
        """Buckets, int64 `b j` -> tokens `b j c`."""
        return self.code(F.embedding(codes, self.waves).to(self.code.weight.dtype))

    @torch.no_grad()
    def encode(self, embed: Tensor) -> Tensor:
        """CLIP image embeddings `b d` -> codes, int64 `b k`. Values beyond the outer edges get the outer buckets."""
        values = self._project(embed)  # b k
        inner = self.edges[:, 1:-1].to(values).contiguous()  # k m-1
        return torch.searchsorted(inner, values.T.contiguous(), right=True).T

    def _project(self, embed: Tensor) -> Tensor:
        """Embeddings `b d` -> their principal components `b k`."""
        with torch.autocast(embed.device.type, enabled=False):  # bfloat16 is coarser than the buckets
            return (embed - self.components.bias.to(embed)) @ self.components.weight.to(embed)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes `b k` -> CLIP image embeddings `b d` in float32, with each component at the middle of its bucket."""
        middles = (self.edges[:, :-1].float() + self.edges[:, 1:].float()) / 2  # k m
        values = middles.gather(1, codes.T).T  # b k
        return self.components(values.to(self.components.weight.dtype)).float()

    @torch.no_grad()
    def encode_dot(self, embed: Tensor, text_embed: Tensor) -> Tensor:
        """Image and text embeddings `b d` -> buckets of their dot products, int64 `b`."""
        dots = (embed * text_embed).sum(-1)
        return torch.searchsorted(self.dot_edges[1:-1].to(dots).contiguous(), dots, right=True)

    @torch.no_grad()
    def fit_quantiser(self, mean: Tensor, axes: Tensor, embed: Tensor, text_embed: Tensor) -> None:
        """Set the principal components, and the edges of the buckets: quantiles, so that all hold as many examples.

        mean: `d`. axes: at least k principal components `k d`. embed, text_embed: of examples, `n d` each.
        """
        self.components.bias.copy_(mean)
        self.components.weight.copy_(axes[: self.config.components].T)
        self.edges.copy_(quantiles(self._project(embed).T, self.config.buckets))
        self.dot_edges.copy_(quantiles((embed * text_embed).sum(-1)[None], self.config.buckets)[0])


class Block(nn.Module):
    """A transformer block with the normalisation first, as in GPT-2."""

    def __init__(self, config: AutoregressiveConfig):
        super().__init__()
        width, inner = config.width, round(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        for last in (self.out, self.mlp[-1]):  # the sum over layers keeps its size, as in GPT-2
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * config.layers))
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, mask: Tensor, layer: int, cache: Cache | None) -> Tensor:
        """New tokens `b t c` -> `b t c`. mask: bool `b 1 t n`, the tokens that each one attends to."""
        qkv = self.qkv(self.norm_attention(x))
        q, k, v = rearrange(qkv, "b t (three h c) -> three b h t c", three=3, h=self.heads)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(rearrange(attended, "b h t c -> b t (h c)"))
        return x + self.mlp(self.norm_mlp(x))


def attention_mask(text_mask: Tensor, seen: int, end: int) -> Tensor:
    """A bool mask `b 1 t n` for attention from tokens seen .. end to tokens 0 .. end: causal, and without padding."""
    places = torch.arange(end, device=text_mask.device)
    causal = places[seen:, None] >= places  # t n
    is_token = F.pad(text_mask, (0, end - text_mask.shape[1]), value=True)  # b n
    return causal & is_token[:, None, None]


def bucket_waves(buckets: int, waves: int) -> Tensor:
    """The features `m w` of each bucket: cosines of its place, with 1, 2, .. half periods and falling amplitudes.

    Neighbouring buckets mean nearly the same, and so have similar features. If each of a thousand buckets had a learned
    vector of its own, each vector would be trained a thousand times less often. With as many waves as buckets, logits
    can take any values.
    """
    # On the CPU even in an empty network: on the meta device, torch would import torch._dynamo to make a range.
    place = (torch.arange(buckets, device="cpu") + 0.5) / buckets  # m
    periods = torch.arange(1, waves + 1, device="cpu")  # w
    return (math.pi * place[:, None] * periods).cos() * (2 / periods).sqrt()


def quantiles(values: Tensor, buckets: int) -> Tensor:
    """The quantiles 0, 1/m .. 1 of each row, `k n` -> `k m+1`, interpolated; the first is the minimum."""
    ordered = values.float().sort(dim=1).values
    place = torch.linspace(0, values.shape[1] - 1, buckets + 1, device=values.device)
    low = place.floor().long()
    high = place.ceil().long()
    return torch.lerp(ordered[:, low], ordered[:, high], place - low)
