"""`octavo plan`: how much memory weights and KV take, before anything is loaded.

From a model's file, or from shape flags alone. The sizes are those of the model's program
(`program.cost`), so that `plan`, `explain` and the engine cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from octavo.cli.figures import pairs, size
from octavo.cli.flags import AsJson, Context, KVDtype, parse_kv_bits
from octavo.cli.loading import USUAL_CONTEXT, open_program
from octavo.cli.screen import Screen
from octavo.config import parse_bytes
from octavo.errors import UsageError, counted
from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.cost import kv_bytes_per_token, uniform_weights
from octavo.values import check_whole

_MOST = 2**40  # of any number that is given: no machine has more, and floats hold what they make
PROCESS_BYTES = 150_000_000  # Python, tables and activations: what RSS may hold beside both

OptionalModel = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="A model; or give its shape by the flags below."),
]
Layers = Annotated[int | None, typer.Option(help="Layers.")]
Hidden = Annotated[int | None, typer.Option(help="Width of the model.")]
Heads = Annotated[int | None, typer.Option(help="Attention heads; needed with --kv-heads.")]
KVHeads = Annotated[int | None, typer.Option(help="KV heads; default: as many as heads.")]
HeadDim = Annotated[int | None, typer.Option(help="Width of a head; default: hidden / heads.")]
Ffn = Annotated[int | None, typer.Option(help="Width of the MLP; with --vocab sizes the weights.")]
Vocab = Annotated[int | None, typer.Option(help="Tokens of the vocabulary.")]
TiedHead = Annotated[bool, typer.Option("--tied-head", help="The head is the embedding.")]
WeightsBits = Annotated[float | None, typer.Option(help="Bits a weight; default 16.")]
Users = Annotated[int, typer.Option("--users", "--batch", help="Sequences held at once.")]
Memory = Annotated[str | None, typer.Option(help="What there is, such as 8GiB: does it fit?")]


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    model: OptionalModel = None,
    *,
    layers: Layers = None,
    hidden: Hidden = None,
    heads: Heads = None,
    kv_heads: KVHeads = None,
    head_dim: HeadDim = None,
    ffn: Ffn = None,
    vocab: Vocab = None,
    tied_head: TiedHead = False,
    weights_bits: WeightsBits = None,
    kv_dtype: KVDtype = "bf16",
    context: Context = None,
    users: Users = 1,
    memory: Memory = None,
    json: AsJson = False,
) -> None:
    """Say what memory weights and KV take, and whether it fits.

    For a context and a number of users. Memory that --memory says is not enough is exit code 1.
    """
    screen = Screen(json)
    check_whole("users", users, 1, _MOST)
    if context is not None:
        check_whole("context", context, 1, _MOST)
    shape = Shape(layers, hidden, heads, kv_heads, head_dim, ffn, vocab, tied_head, weights_bits)
    _check_most(asdict(shape))
    bits = parse_kv_bits(kv_dtype)
    memory_bytes = None if memory is None else parse_bytes("memory", memory)
    if model is None:
        found = _of_shape(shape, bits, context or USUAL_CONTEXT, users, memory_bytes)
    else:
        if given := shape.given():
            raise UsageError(f"{model} has a shape of its own: leave out {', '.join(given)}")
        found = _of_model(model, bits, context, users, memory_bytes)
    screen.say(found.text())
    screen.result(found.to_dict())
    if not found.fits:
        raise typer.Exit(1)


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

    def given(self) -> list[str]:
        values = asdict(self)
        return [
            f"--{name.replace('_', '-')}" for name in values if values[name] not in (None, False)
        ]

    def config(self) -> ModelConfig:
        """As a model of the Llama family; without heads one head of full width, which is MHA's KV.

        An FFN or a vocabulary that was not given is 1: KV does not depend on them.
        """
        for name, value in asdict(self).items():
            given = value is not None and not isinstance(value, bool)
            if given and not value > 0:
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected more than 0")
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


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes in bytes; `weight_bytes` is None where the flags do not say enough."""

    model: str | None
    model_context: int | None  # None where the flags say nothing of it
    context: int
    users: int
    weight_bytes: float | None
    kv_bytes_per_token: float
    memory_bytes: int | None

    @property
    def kv_bytes_per_user(self) -> float:
        return self.context * self.kv_bytes_per_token

    @property
    def kv_bytes(self) -> float:
        return self.users * self.kv_bytes_per_user

    @property
    def fixed_bytes(self) -> float:
        return (self.weight_bytes or 0) + PROCESS_BYTES

    @property
    def total_bytes(self) -> float:
        return self.fixed_bytes + self.kv_bytes

    @property
    def users_that_fit(self) -> int:
        """Users of this context that the memory holds."""
        return int(self._room() // self.kv_bytes_per_user)

    @property
    def context_that_fits(self) -> int:
        """Tokens for each of these users that the memory holds, of those that the model has."""
        tokens = int(self._room() // (self.users * self.kv_bytes_per_token))
        return tokens if self.model_context is None else min(tokens, self.model_context)

    @property
    def fits(self) -> bool:
        return self.memory_bytes is None or self.total_bytes <= self.memory_bytes

    def to_dict(self) -> dict[str, object]:
        found = {**asdict(self), "process_bytes": PROCESS_BYTES}
        found |= {
            "kv_bytes_per_user": self.kv_bytes_per_user,
            "kv_bytes": self.kv_bytes,
            "total_bytes": self.total_bytes,
        }
        if self.memory_bytes is not None:
            found |= {
                "fits": self.fits,
                "users_that_fit": self.users_that_fit,
                "context_that_fits": self.context_that_fits,
            }
        return found

    def text(self) -> str:
        weights = "not counted: give --ffn and --vocab"
        if self.weight_bytes is not None:
            weights = size(self.weight_bytes)
        rows = [
            ("weights", weights),
            ("KV a token", f"{size(self.kv_bytes_per_token)}"),
            ("KV a user", f"{size(self.kv_bytes_per_user)} at {counted(self.context, 'token')}"),
            ("KV", f"{size(self.kv_bytes)} for {counted(self.users, 'user')}"),
            ("process", f"{size(PROCESS_BYTES)} at most"),
            ("total", size(self.total_bytes)),
        ]
        return "\n".join([pairs(rows), *self._verdict(self.memory_bytes)])

    def _verdict(self, memory: int | None) -> list[str]:
        if memory is None:
            return []
        users = counted(self.users_that_fit, "user")
        room = f"it holds {users} of {counted(self.context, 'token')}"
        if self.context_that_fits != self.context:
            each = "1 user" if self.users == 1 else f"each of {self.users:,}"
            room += f", or {counted(self.context_that_fits, 'token')} for {each}"
        if self.fits:
            what = "fits" if self.weight_bytes is not None else "without its weights it fits"
            return [f"{what} into {size(memory)}: {room}"]
        missing = self.total_bytes - memory
        if self.fixed_bytes > memory:
            return [f"does not fit: weights and process leave no room in {size(memory)}"]
        return [f"does not fit: {size(missing)} more than {size(memory)}; {room}"]

    def _room(self) -> float:
        return max(0.0, (self.memory_bytes or 0) - self.fixed_bytes)


def _check_most(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None and value > _MOST:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} {value}: expected at most {_MOST:,}")


def _of_model(
    model: str, bits: tuple[int, int], context: int | None, users: int, memory: int | None
) -> Plan:
    header, program, tokens = open_program(model, context)
    weights = sum(header.weight_bytes(program.weights()).values())
    per_token = kv_bytes_per_token(program, *bits)
    return Plan(model, header.config.context, tokens, users, weights, per_token, memory)


def _of_shape(
    shape: Shape, bits: tuple[int, int], context: int, users: int, memory: int | None
) -> Plan:
    program, weights = llama.build(shape.config()), None
    if shape.ffn is not None and shape.vocab is not None:
        weights = sum(uniform_weights(program, shape.weights_bits or 16).values())
    per_token = kv_bytes_per_token(program, *bits)
    return Plan(None, None, context, users, weights, per_token, memory)
