"""ModelConfig: the numbers of a model, whatever file they came from. Frozen; checked once, when
made."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from octavo.errors import ModelFormatError
from octavo.kernels import native
from octavo.model.latent import Latent
from octavo.model.mixture import Mixture
from octavo.model.uneven import Uneven
from octavo.program.ops import ActivationKind, RopeStyle, WeightSpec
from octavo.program.slopes import Slopes

# Far above any model known; they keep a corrupt number from filling memory before the tensors'
# shapes refute it.
MOST_LAYERS, MOST_HEADS = 2**12, 2**16
_MOST = {
    "num_layers": MOST_LAYERS, "hidden_size": 2**20, "ffn_size": 2**24, "heads": MOST_HEADS,
    "kv_heads": 2**16, "head_dim": 2**20, "vocab_size": native.MAX_VOCAB, "context": 2**32,
    "position_original": 2**31 - 1,
}  # fmt: skip
_LEAST_SCALE, _LEAST_CAP, _MOST_SCALE = 1e-6, 1e-3, 1e6  # as far from any model's
NO_MORE_POSITIONS = "its table of positions has no more"  # of models that learned one
_HEAD_STEP = 16  # kernels run heads of whole vectors


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes in elements; `context` is the longest sequence the model was trained for, in tokens."""

    architecture: str
    num_layers: int
    hidden_size: int
    ffn_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int  # rows of the embedding and of the head
    context: int
    norm_eps: float
    rope_base: float
    rotary_dim: int
    rope_style: RopeStyle
    tied_head: bool
    qkv_bias: bool
    output_bias: bool = False  # of attention
    ffn_bias: bool = False
    padding: int = 0  # rows of the vocabulary, the last ones, that are no tokens
    rope_factors: tuple[float, ...] = ()  # divide the frequencies (inf: not rotated); (): none
    rope_amplitude: float = 1.0  # multiplies cos and sin (YaRN, LongRoPE)
    long_rope_factors: tuple[float, ...] = ()  # instead, in contexts longer than the original one
    original_context: int = 0  # of models that have those
    why_no_longer: str = ""  # what keeps the context from being longer, beside training
    rope_scale: float = 1.0  # divides positions (linear scaling)
    window: int = 0  # tokens that a row of a windowed layer sees; 0: there is no such layer
    windowed: tuple[bool, ...] = ()  # by layer, which have the window; (): none
    without_rope: tuple[bool, ...] = ()  # by layer, which have no rotary embedding; (): none
    parallel_norms: int = 0  # attention and MLP read the same rows, by so many norms; 0: in turn
    activation: ActivationKind = "silu"  # of MLPs without a gate
    qk_norm: bool = False  # q and k are normed before RoPE, each head or the whole row
    slopes: Slopes | None = None  # scores fall with distance by these, in place of positions
    embedding_size: int = 0  # of a token's row, which a matrix makes `hidden_size`; 0: it is that
    norms_last: bool = False  # a norm follows what a block adds, none stands before it
    norm_weights: bool = True
    qkv_limit: float = 0.0  # q, k and v are kept within it; 0: none
    mixture: Mixture | None = None  # of the layers that have experts
    uneven: Uneven | None = None  # of layers that differ; the numbers here are of full ones
    latent: Latent | None = None  # what pages keep in place of heads' K and V; None: those
    local_rope_base: float | None = None  # of windowed layers with one, whose positions are as is
    embedding_scale: float = 1.0  # multiplies the rows of tokens
    residual_scale: float = 1.0  # what each block adds
    attention_scale: float | None = None  # scores, if not head_dim ** -0.5
    attention_softcap: float = 0.0  # of scores; 0: none
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    position_beta: float = 0.0  # queries are scaled by their position (`ScaleByPosition`); 0: not
    position_original: int = 1
    assumed: tuple[str, ...] = ()  # keys that the file lacks, with the value that its family means
    unsupported: str = ""  # what the model computes beyond these numbers; "" = nothing

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value < 1:
                raise ModelFormatError(f"{name} is {value}: expected at least 1")
            if value > most:
                raise ModelFormatError(f"{name} is {value}: expected at most {most}")
        if not 0 <= self.padding < self.vocab_size:
            raise ModelFormatError(
                f"{self.vocab_size - self.padding} tokens of {self.vocab_size} rows: expected at "
                f"least 1 and at most {self.vocab_size}"
            )
        for name in ("windowed", "without_rope"):
            value = getattr(self, name)
            if value and len(value) != self.num_layers:
                raise ModelFormatError(
                    f"{name} has {len(value)} layers: expected {self.num_layers}"
                )
        windowed = ("window", "local_rope_base") if self.windowed else ()
        scales = ("embedding_scale", "residual_scale", "attention_scale", "logit_scale")
        for name in ("rope_base", "rope_scale", "rope_amplitude", *windowed, *scales):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ModelFormatError(f"{name} is {value}: expected a number above 0")
            if name.endswith("rope_base") and value is not None and value < 1:
                raise ModelFormatError(f"{name} is {value}: expected a number from 1")
        for name in (
            "norm_eps", "attention_softcap", "logit_softcap", "position_beta", "qkv_limit",
        ):  # fmt: skip
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ModelFormatError(f"{name} is {value}: expected a number from 0")
        for name in (*scales, "attention_softcap", "logit_softcap", "qkv_limit"):
            value = getattr(self, name)
            least = _LEAST_CAP if name.endswith("softcap") else _LEAST_SCALE
            if value and not least <= value < _MOST_SCALE:
                raise ModelFormatError(
                    f"{name} is {value}: expected a number from {least:g}, below {_MOST_SCALE:g}"
                )
        if self.mixture is not None and len(self.mixture.sparse) != self.num_layers:
            raise ModelFormatError(
                f"sparse has {len(self.mixture.sparse)} layers: expected {self.num_layers}"
            )
        if self.norm_eps >= 1:
            raise ModelFormatError(f"norm_eps is {self.norm_eps}: expected a number below 1")
        if self.heads % self.kv_heads:
            raise ModelFormatError(
                f"{self.heads} heads do not divide into {self.kv_heads} KV heads"
            )
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            raise ModelFormatError(
                f"rotary_dim {self.rotary_dim}: expected an even number up to {self.head_dim}"
            )
        for factors in (self.rope_factors, self.long_rope_factors):
            if factors and len(factors) != self.rotary_dim // 2:
                raise ModelFormatError(
                    f"{len(factors)} rope factors: expected {self.rotary_dim // 2}"
                )
            if not all(factor > 0 for factor in factors):
                raise ModelFormatError("a rope factor is not above 0")
        if self.uneven is not None:
            self._check_uneven(self.uneven)

    def _check_uneven(self, uneven: Uneven) -> None:
        if self.heads % uneven.windowed_kv_heads:
            raise ModelFormatError(
                f"{self.heads} heads do not divide into {uneven.windowed_kv_heads} KV heads of "
                "windowed layers"
            )
        first = self.num_layers - uneven.sharing
        kinds = [self.is_full(layer) for layer in range(self.num_layers)]
        if first < 1 or not {*kinds[first:]} <= {*kinds[:first]}:
            raise ModelFormatError(
                f"the last {uneven.sharing} of {self.num_layers} layers store no K and V: expected "
                "layers of their kinds before them that do"
            )

    @property
    def tokens(self) -> int:
        """Rows of the vocabulary that are tokens, the first ones."""
        return self.vocab_size - self.padding

    def head_weight(self, embedding: WeightSpec) -> WeightSpec:
        """Return the matrix that makes logits: the embedding's, or one of its own."""
        return embedding if self.tied_head else WeightSpec("output.weight", embedding.shape)

    @property
    def stored_head_dim(self) -> int:
        """Return how wide programs and pages have a head: zeros follow its own values, and add
        nothing but to the mean of a norm."""
        if self.qk_norm or self.latent:
            return self.head_dim
        return -(-self.head_dim // _HEAD_STEP) * _HEAD_STEP

    @property
    def score_scale(self) -> float:
        """Return what scores of attention are multiplied by."""
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    def longest(self, context: int | None) -> int:
        """Return how long sequences may be where so many tokens are asked for: with slopes as
        long as that, for no number of positions is learned."""
        return max(context or 0, self.context) if self.slopes else self.context

    def is_full(self, layer: int) -> bool:
        """Whether the layer is none of the windowed ones, which may have a RoPE base of their own
        however long their window is."""
        return not (self.windowed and self.windowed[layer])

    @property
    def windows(self) -> list[int]:
        """Tokens that a row of each layer sees; 0: all."""
        return [0 if self.is_full(layer) else self.window for layer in range(self.num_layers)]

    def mixture_of(self, layer: int) -> Mixture | None:
        """Return the experts of a layer; None if it has one MLP."""
        return self.mixture if self.mixture and self.mixture.sparse[layer] else None

    def has_rope(self, layer: int) -> bool:
        """Whether q and k of the layer are rotated by position."""
        return not (self.without_rope and self.without_rope[layer])

    def is_long(self, context: int) -> bool:
        """Whether sequences up to this length have the long RoPE factors, over all their length."""
        return bool(self.long_rope_factors) and context > self.original_context

    def for_context(self, context: int) -> ModelConfig:
        """Return the model with its factors chosen: by what it is loaded for, so that no sequence
        changes them on its way."""
        return replace(self, rope_factors=self.long_rope_factors) if self.is_long(context) else self

    def rope_frequencies(self) -> tuple[float, ...]:
        """Radians per position of each rotated pair, (rotary_dim / 2,)."""
        plain = _frequencies(self.rope_base, self.rotary_dim)
        factors = self.rope_factors or (1.0,) * len(plain)
        return tuple(f / by / self.rope_scale for f, by in zip(plain, factors, strict=True))

    def local_rope_frequencies(self) -> tuple[float, ...]:
        """Those of windowed layers that have a base of their own, (rotary_dim / 2,)."""
        assert self.local_rope_base is not None
        dim = self.uneven.windowed_head_dim if self.uneven else self.rotary_dim
        return _frequencies(self.local_rope_base, dim)


def all_but_every(nth: int, layers: int) -> tuple[bool, ...]:
    """Return a flag by layer: for all but nth - 1, 2 * nth - 1, ..."""
    return tuple((layer + 1) % nth != 0 for layer in range(layers))


def _frequencies(base: float, rotary_dim: int) -> tuple[float, ...]:
    return tuple(base ** (-2.0 * i / rotary_dim) for i in range(rotary_dim // 2))
