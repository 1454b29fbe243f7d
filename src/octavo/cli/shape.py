"""A model's shape by flags, for a plan without a file: which there are, and which make no sense."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from octavo.cli.command import Flag
from octavo.errors import UsageError
from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.cost import uniform_weights
from octavo.program.program import Program

MOST = 2**40  # of any number that is given: no machine has more, and floats hold what they make

Layers = Annotated[int | None, Flag(help="Layers.")]
Hidden = Annotated[int | None, Flag(help="Width of the model.")]
Heads = Annotated[int | None, Flag(help="Attention heads; needed with --kv-heads.")]
KVHeads = Annotated[int | None, Flag(help="KV heads; default: as many as heads.")]
HeadDim = Annotated[int | None, Flag(help="Width of a head; default: hidden / heads.")]
Ffn = Annotated[int | None, Flag(help="Width of the MLP; with --vocab sizes the weights.")]
Vocab = Annotated[int | None, Flag(help="Tokens of the vocabulary.")]
TiedHead = Annotated[bool, Flag("--tied-head", help="The head is the embedding.")]
WeightsBits = Annotated[float | None, Flag(help="Bits a weight; default 16.")]


@dataclass(frozen=True, slots=True)
class Shape:
    """A model by its flags; None where a flag was not given."""

    layers: int | None
    hidden: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    ffn: int | None
    vocab: int | None
    tied_head: bool
    weights_bits: float | None

    def __post_init__(self) -> None:
        for flag, value in self.given().items():
            if value > MOST:
                raise UsageError(f"{flag} {value}: expected at most {MOST:,}")

    def given(self) -> dict[str, float]:
        """The flags that were given, by their names."""
        values = {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items()}
        return {flag: v for flag, v in values.items() if v is not None and v is not False}

    def program(self) -> Program:
        return llama.build(self._config())

    def weight_bytes(self, program: Program) -> float | None:
        """None where the flags do not say enough."""
        if self.ffn is None or self.vocab is None:
            return None
        return sum(uniform_weights(program, self.weights_bits or 16).values())

    def _config(self) -> ModelConfig:
        """Make a model config of the Llama family; without heads, one head of full width: MHA's KV.

        An FFN or a vocabulary that was not given is 1: KV does not depend on them.
        """
        for flag, value in self.given().items():
            if not value > 0:
                raise UsageError(f"{flag} {value}: expected more than 0")
        if self.layers is None or self.hidden is None:
            raise UsageError("give a model, or at least --layers and --hidden")
        if self.heads is None and (self.kv_heads or self.head_dim):
            raise UsageError("--kv-heads and --head-dim need --heads")
        heads = self.heads or 1
        kv_heads = self.kv_heads or heads
        if heads % kv_heads:
            raise UsageError(f"--kv-heads {kv_heads} does not divide --heads {heads}")
        if self.head_dim is None and self.hidden % heads:
            raise UsageError(
                f"--hidden {self.hidden} does not divide into {heads} heads: give --head-dim"
            )
        head_dim = self.head_dim or self.hidden // heads
        if head_dim < 2:
            raise UsageError(f"heads of width {head_dim}: expected at least 2")
        return ModelConfig(
            architecture="llama", num_layers=self.layers, hidden_size=self.hidden,
            ffn_size=self.ffn or 1, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
            vocab_size=self.vocab or 1, context=1, norm_eps=1e-5, rope_base=1e4, rotary_dim=2,
            rope_style="half", tied_head=self.tied_head, qkv_bias=False,
        )  # fmt: skip
