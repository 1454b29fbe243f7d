"""`octavo bench kv-heads`: one model as MHA, GQA and MQA, beside what papers report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from octavo.cli.bench_run import check_counts
from octavo.cli.command import Flag
from octavo.cli.figures import columns, finite, number, size
from octavo.cli.flags import ENGINE, AsJson, Model, with_flags
from octavo.cli.loading import find_or_pull
from octavo.cli.screen import Screen
from octavo.cli.staying import staying
from octavo.errors import UsageError
from octavo.weights.model_header import read_header

if TYPE_CHECKING:
    from octavo.bench.kv_heads import HeadsMeasured

_FIELDS = ("kv_dtype", "kv_sinks", "threads", "block_size", "weights", "activations")
FLAGS = tuple(flag for flag in ENGINE if flag.name in _FIELDS)
MEMORY = 1 << 30  # bytes that sequences are counted in
PAPERS = """\
In papers: T5-XXL with MHA, GQA-8 and MQA took 1.51, 0.28 and 0.24 s a sample (Ainslie et al. 2023,
table 1), each after training; here K and V are averaged and nothing is trained."""


@with_flags(engine=FLAGS)
def kv_heads(
    model: Model,
    *,
    heads: Annotated[
        str | None, Flag(help="Numbers of KV heads, as in 9,3,1; default: all heads, its own, 1.")
    ] = None,
    rounds: Annotated[int, Flag(help="Rounds of decoding; medians are over them.")] = 5,
    json: AsJson = False,
    engine: dict[str, Any],
) -> None:
    """Other numbers of KV heads: memory, speed, perplexity.

    Each is made by `octavo convert` in a folder that goes away: more heads are copies, which answer
    the same, fewer are means, which answer worse until they are trained. Weights are bf16, or what
    --weights asks; sequences have 2,048 tokens; perplexity is over 4,096 of a text that comes
    along.
    """
    check_counts(rounds=(rounds, 1))
    screen = Screen(json)
    path = find_or_pull(model)
    config = read_header(path).config
    numbers = _parse(heads) or sorted({config.heads, config.kv_heads, 1}, reverse=True)
    with staying():
        from octavo.bench.kv_heads import measure

    found = measure(
        path, numbers, engine, memory=MEMORY, rounds=rounds,
        on_model=lambda n: screen.note(f"{model} with KV heads: {n}"),
    )  # fmt: skip
    screen.say(_table(found))
    screen.say(PAPERS)
    rows = [
        {"kind": each.kind, **asdict(each), "perplexity": finite(each.perplexity)} for each in found
    ]
    screen.result({"bench": "kv-heads", "model": model, "kv_memory": MEMORY, "models": rows})


def _parse(heads: str | None) -> list[int]:
    if heads is None:
        return []
    try:
        return [int(each) for each in heads.split(",")]
    except ValueError:
        raise UsageError(f"--heads {heads}: expected whole numbers, as in 9,3,1") from None


def _table(found: list[HeadsMeasured]) -> str:
    tokens = f"{found[0].tokens:,} tokens"
    rows = [["KV heads", "kind", tokens, f"in {size(MEMORY)}", "tok/s", "perplexity"]]
    for each in found:
        rows.append([
            str(each.kv_heads), each.kind, size(each.window_bytes), f"{each.sequences:,}",
            number(each.decode_tps), f"{each.perplexity:,.3f}",
        ])  # fmt: skip
    return columns(rows, indent="")
