"""`octavo bench kv-dtype`: what each KV dtype does to a model's answers, memory and speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from octavo.cli.bench_run import check_counts
from octavo.cli.command import Flag
from octavo.cli.figures import columns, number, percent, size, wrapped
from octavo.cli.flags import ENGINE, AsJson, KVSinks, Model, with_flags
from octavo.cli.loading import open_program
from octavo.cli.screen import Screen
from octavo.cli.staying import staying
from octavo.config import EngineConfig
from octavo.environment import find_home
from octavo.errors import UsageError, counted
from octavo.given_text import decode
from octavo.weights import kv_verdicts
from octavo.weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from octavo.bench.kv_dtype import Measured

_FIELDS = ("kv_memory", "threads", "block_size", "weights", "activations")
FLAGS = tuple(flag for flag in ENGINE if flag.name in _FIELDS)
MEMORY = 1 << 30  # bytes that sequences are counted in, unless kv_memory says others


@with_flags(engine=FLAGS)
def kv_dtype(
    model: Model,
    *,
    text: Annotated[
        Path | None, Flag(help="A text in UTF-8; default: 73 kB of Sherlock Holmes, of 1891.")
    ] = None,
    kv_sinks: KVSinks = None,
    rounds: Annotated[int, Flag(help="Rounds of decoding; medians are over them.")] = 5,
    json: AsJson = False,
    engine: dict[str, Any],
) -> None:
    """K and V as bf16, float32, int8 and int4: quality, memory, speed.

    A text goes through in windows of at most 4,096 tokens; perplexity, KL divergence and likeliest
    tokens are those of all of its tokens, against bf16 pages, with rows of bf16 where --activations
    asks for no others. A dtype is safe if perplexity grows by 0.5 % or less and 98 % of likeliest
    tokens stay, usable up to 3 % and a KL of 0.04; of fewer than 1,000 tokens nothing is said. What
    was found is kept by the model's fingerprint and --weights: a start with a dtype that is not
    safe says so, and one with int4 that was never measured. With int4 the first tokens stay bf16
    (sinks), as a start has it; --kv-sinks 0 measures it without.
    """
    check_counts(rounds=(rounds, 1))
    screen = Screen(json)
    header, program, _ = open_program(model, None, EngineConfig())
    with staying():
        from octavo.bench.kv_dtype import measure, no_verdict
        from octavo.bench.subject import load, text_along, tokens_of
    tokens, start = tokens_of(header, text_along() if text is None else _read(text))
    if len(tokens) < 2:
        raise UsageError(f"--text: expected at least 2 tokens, got {len(tokens)}")
    config = EngineConfig.parse({**engine, "kv_dtype": "bf16"})
    engine = {k: v for k, v in engine.items() if k != "kv_memory"}
    engine = engine if kv_sinks is None else {**engine, "kv_sinks": kv_sinks}
    EngineConfig.parse({**engine, "kv_dtype": "int4"})
    subject = load(header, program, config, tokens, start, context=header.config.context)
    said = f"{counted(len(tokens), 'token')} in windows of {subject.window:,}"
    screen.say(f"{model}: {said}; sequences in {size(_memory(config))} of KV memory")
    found = measure(
        subject, engine, memory=_memory(config), rounds=rounds,
        on_tokens=lambda done: screen.note(f"{done:,} of {len(tokens):,} tokens"),
    )  # fmt: skip
    screen.say(_table(found))
    screen.say(_advice(found, no_verdict(found[0].quality)))
    if (folder := find_home()) is not None:
        digest = fingerprint(header.path, home=folder)
        named = {kv_verdicts.key(each.dtype, each.sinks): each.to_dict() for each in found}
        kv_verdicts.keep(folder, digest, named, config.weights)
    screen.result(
        {
            "bench": "kv-dtype",
            "model": model,
            "tokens": len(tokens),
            "window": subject.window,
            "kv_memory": _memory(config),
            "dtypes": [each.to_dict() for each in found],
        }
    )


def _memory(config: EngineConfig) -> int:
    return config.kv_memory or MEMORY


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--text {path}: cannot be read: {error.strerror}") from None
    return decode(f"--text {path}", data)


def _table(found: list[Measured]) -> str:
    rows = [
        ["dtype", "a token", "sequences", "tok/s", "perplexity", "change", "KL", "99.9 %",
         "same top", "verdict"]
    ]  # fmt: skip
    for each in found:
        quality = each.quality
        rows.append([
            kv_verdicts.key(each.dtype, each.sinks), size(each.token_bytes),
            f"{each.sequences:,}", number(each.decode_tps),
            f"{quality.perplexity:.3f}", f"{100 * quality.perplexity_change:+.2f} %",
            f"{quality.kl_mean:.5f}", f"{quality.kl_999:.4f}", percent(quality.same_top),
            each.verdict or "-",
        ])  # fmt: skip
    return columns(rows, indent="")


def _advice(found: list[Measured], undecided: str | None) -> str:
    if undecided is not None:
        return wrapped(f"No verdict: {undecided}; --text takes another one.")
    least = min(
        (m for m in found if m.verdict == "safe"), key=lambda m: m.token_bytes, default=None
    )
    if least is None or least.token_bytes >= found[0].token_bytes:
        return "For this model no smaller dtype is safe."
    share = least.token_bytes / found[0].token_bytes
    return f"For this model --kv-dtype {least.dtype} is safe, at {number(share)}x of bf16's bytes."
