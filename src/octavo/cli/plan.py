"""`octavo plan`: how much memory weights and KV take, from a model's file or from shape flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from click.exceptions import Exit

from octavo.cli import shape as flags
from octavo.cli.command import Argument, Flag, Group
from octavo.cli.figures import pairs, size
from octavo.cli.flags import (
    AsJson,
    Context,
    KVDtype,
    KVSinks,
    Sinks,
    SlidingContext,
    planned_config,
)
from octavo.cli.loading import USUAL_CONTEXT, open_config, open_program
from octavo.cli.screen import Screen
from octavo.config import PackedWeights, parse_bytes
from octavo.errors import UsageError, counted
from octavo.kernels import KV_FORMATS, native
from octavo.model.config import ModelConfig
from octavo.planning.experts import active_bytes
from octavo.planning.memory import kv_pages, page_formats
from octavo.planning.plan import PROCESS_BYTES, Plan
from octavo.planning.sliding import apply_sliding_context
from octavo.program.kv_bytes import PageFormats, expanded_bytes, kv_bytes_per_token
from octavo.values import check_whole
from octavo.weights.packed_formats import in_file_bytes, packed_bytes

OptionalModel = Annotated[
    str | None,
    Argument(
        metavar="MODEL",
        help="A model, or a config.json without its weights; or give a shape by the flags below.",
    ),
]
AsWeights = Annotated[
    PackedWeights | None,
    Flag(help="A model's weights as w8, w4, bf16 or f32; default: as the file has them."),
]
Users = Annotated[int, Flag("--users", "--batch", help="Sequences held at once.")]
Memory = Annotated[str | None, Flag(help="What there is, such as 8GiB: does it fit?")]


def register(app: Group) -> None:
    app.add("plan", plan)


def plan(
    model: OptionalModel = None,
    *,
    layers: flags.Layers = None,
    hidden: flags.Hidden = None,
    heads: flags.Heads = None,
    kv_heads: flags.KVHeads = None,
    head_dim: flags.HeadDim = None,
    ffn: flags.Ffn = None,
    vocab: flags.Vocab = None,
    tied_head: flags.TiedHead = False,
    weights_bits: flags.WeightsBits = None,
    weights: AsWeights = None,
    kv_dtype: KVDtype = "bf16",
    kv_sinks: KVSinks = None,
    sliding_context: SlidingContext = None,
    sinks: Sinks = None,
    context: Context = None,
    users: Users = 1,
    memory: Memory = None,
    json: AsJson = False,
) -> None:
    """Say what memory weights and KV take, and whether it fits.

    For a context and a number of users. Memory that --memory says is not enough is exit code 1.
    """
    screen = Screen(json)
    check_whole("users", users, 1, flags.MOST)
    if context is not None:
        check_whole("context", context, 1, flags.MOST)
    shape = flags.Shape(
        layers, hidden, heads, kv_heads, head_dim, ffn, vocab, tied_head, weights_bits
    )
    config = planned_config(
        kv_dtype, kv_sinks=kv_sinks, sliding_context=sliding_context, sinks=sinks
    )
    memory_bytes = None if memory is None else parse_bytes("memory", memory)
    if model is None:
        if weights is not None:
            raise UsageError("--weights is of a model; with a shape give --weights-bits")
        program, cfg = apply_sliding_context(shape.program(), config, native.MAX_CONTEXT), None
        tokens = context or sliding_context or USUAL_CONTEXT
        weight_bytes = active = shape.weight_bytes(program)
        in_file = 0.0
    elif given := shape.given():
        raise UsageError(f"{model} has a shape of its own: leave out {', '.join(given)}")
    elif (path := Path(model)).name == "config.json" and path.is_file():
        if weights is not None:
            raise UsageError("--weights is of a model; a config.json has none")
        cfg, program, tokens = open_config(path, context, config)
        weight_bytes, active, in_file = None, None, 0.0
    else:
        header, program, tokens = open_program(model, context, config)
        cfg = header.config
        packed = packed_bytes(header, program.weights(), weights)
        weight_bytes, active = sum(packed.values()), active_bytes(program, packed)
        in_file = in_file_bytes(header, program.weights())
    formats = page_formats(program, config)
    pages = kv_pages(program, config.block_size, formats, max_rows=config.max_batch_tokens)
    at_most = None if sliding_context is None else float(pages.bytes_of(native.MAX_CONTEXT))
    found = Plan(
        model, None if cfg is None else cfg.context, tokens, users, weight_bytes, active,
        kv_bytes_per_token=kv_bytes_per_token(program, formats),
        pages=pages, memory_bytes=memory_bytes, in_file_bytes=in_file,
        sliding_context=sliding_context, kv_bytes_at_most=at_most,
        expanded_kv_bytes_per_token=_expanded(cfg, formats),
    )  # fmt: skip
    is_once = any(map(formats.v_aliases_k, program.groups))
    latent = _latent(found, cfg, v_aliases_k=is_once)
    screen.say("\n".join([pairs(_rows(found) + latent), *_verdict(found)]))
    screen.result(found.to_dict())
    if not found.fits:
        raise Exit(1)


def _expanded(cfg: ModelConfig | None, formats: PageFormats) -> float | None:
    """Return what a token would take if heads had K and V of their own, where pages keep latent
    rows; None elsewhere."""
    if cfg is None or cfg.latent is None:
        return None
    dims = cfg.latent.head_dim, cfg.latent.v_head_dim
    return expanded_bytes(cfg.num_layers, cfg.heads, dims, formats)


def _latent(plan: Plan, cfg: ModelConfig | None, *, v_aliases_k: bool) -> list[tuple[str, str]]:
    if cfg is None or cfg.latent is None or plan.expanded_kv_bytes_per_token is None:
        return []
    expanded = plan.expanded_kv_bytes_per_token
    less = f"{expanded / plan.kv_bytes_per_token:.1f} times less than {size(expanded)}"
    text = f"{less}, K and V of {cfg.heads} heads: a layer keeps {cfg.latent.stored} values of a "
    rank = cfg.latent.kv_lora_rank
    if v_aliases_k:
        text += f"token, and reads {rank} of them as V"
    else:
        once = " or ".join(each.name for each in KV_FORMATS.values() if each.gives_v)
        text += f"token, and {rank} of them a second time, as V: once where both are "
        text += once
    return [("latent rows", text)]


def _rows(plan: Plan) -> list[tuple[str, str]]:
    weights = "not counted: give --ffn and --vocab" if plan.model is None else "not counted"
    if plan.weight_bytes is not None:
        weights = size(plan.weight_bytes)
        active = plan.active_weight_bytes
        if active is not None and active != plan.weight_bytes:
            weights += f", of which a token alone reads {size(active)}"
    tokens = counted(plan.context, "token")
    is_endless = plan.sliding_context is not None
    if not is_endless and plan.model_context is not None and plan.context > plan.model_context:
        tokens += f", where the model was trained for {plan.model_context:,}"
    if plan.in_file_bytes:
        weights += f"; {size(plan.in_file_bytes)} of layers' embeddings stay in the file"
    return [
        ("weights", weights),
        ("KV a token", size(plan.kv_bytes_per_token)),
        ("KV a user", f"{size(plan.kv_bytes_per_user)} at {tokens}{_beyond(plan)}"),
        ("KV", f"{size(plan.kv_bytes)} for {counted(plan.users, 'user')}"),
        ("process", f"{size(PROCESS_BYTES)} at most"),
        ("total", size(plan.total_bytes)),
    ]


def _beyond(plan: Plan) -> str:
    """Say what a sequence takes that goes on."""
    if plan.sliding_context is None or plan.kv_bytes_at_most is None:
        return ""
    most = size(plan.kv_bytes_at_most)
    return f", and {most} however many they become: {plan.sliding_context:,} are seen"


def _verdict(plan: Plan) -> list[str]:
    memory = plan.memory_bytes
    if memory is None:
        return []
    if plan.fixed_bytes > memory:
        return [f"does not fit: weights and process leave no room in {size(memory)}"]
    users = counted(plan.users_that_fit, "user")
    room = f"it holds {users} of {counted(plan.context, 'token')}"
    if plan.sliding_context is None and plan.context_that_fits != plan.context:
        each = "1 user" if plan.users == 1 else f"each of {plan.users:,}"
        room += f", or {counted(plan.context_that_fits, 'token')} for {each}"
    if not plan.fits:
        return [f"does not fit: {size(plan.total_bytes - memory)} more than {size(memory)}; {room}"]
    what = "fits" if plan.weight_bytes is not None else "without its weights it fits"
    return [f"{what} into {size(memory)}: {room}"]
