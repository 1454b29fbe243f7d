"""`octavo convert`: a model as a directory in Hugging Face's layout, with as many KV heads as
asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from octavo.cli.command import Argument, Flag, Group
from octavo.cli.figures import finite, size
from octavo.cli.flags import AsJson, Model
from octavo.cli.loading import find_or_pull
from octavo.cli.screen import Screen
from octavo.cli.staying import staying
from octavo.errors import UsageError

_HARMLESS = 1.005  # as much more perplexity is nothing that anybody sees


def register(app: Group) -> None:
    app.add("convert", run)


def run(
    model: Model,
    to: Annotated[Path, Argument(metavar="DIR", help="The directory that is written.")],
    *,
    kv_heads: Annotated[
        int | None, Flag(help="KV heads: fewer are means of K and V, more are copies.")
    ] = None,
    to_format: Annotated[
        Literal["hf"] | None, Flag("--to", help="Write a GGUF file as it is, dequantised.")
    ] = None,
    dtype: Annotated[Literal["f32", "bf16"], Flag(help="What weights are written as.")] = "bf16",
    force: Annotated[
        bool, Flag("--force", help="Replace a model directory that is there.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write a model as a directory in Hugging Face's layout.

    A GGUF file's weights are dequantised; what rounding to --dtype lost is told. With fewer KV
    heads the change of perplexity is told too, over 4,096 tokens of a text that comes along. The
    directory takes its place whole or not at all.
    """
    screen = Screen(json)
    path = find_or_pull(model)
    if kv_heads is None and to_format is None:
        raise UsageError("nothing to change: give --kv-heads, or --to hf for a GGUF file")
    if kv_heads is None and path.is_dir():
        raise UsageError(f"--to hf: {model} is such a directory already; --kv-heads changes it")
    with staying():
        from octavo.convert.convert import convert

    done = convert(path, to, kv_heads=kv_heads, dtype=dtype, force=force)
    found: dict[str, Any] = {
        "model": model, "path": str(done.path), "dtype": dtype, "bytes": done.nbytes,
        "kv_heads": done.kv_heads, "kv_heads_before": done.kv_heads_before,
        "rounding": done.rounding.relative,
    }  # fmt: skip
    screen.say(
        f"{done.path}: weights as {dtype}, {size(done.nbytes)}; rounding lost "
        f"{100 * done.rounding.relative:.2f} % of them (root mean square)"
    )
    if done.kv_heads > done.kv_heads_before:
        screen.say(f"K and V of {done.kv_heads_before} heads were copied to {done.kv_heads}")
    if done.kv_heads < done.kv_heads_before:
        screen.say(f"K and V of {done.kv_heads_before} heads were averaged to {done.kv_heads}")
        found |= _told_loss(screen, path, done.path)
    screen.result(found)


def _told_loss(screen: Screen, before: Path, after: Path) -> dict[str, float | None]:
    with staying():
        from octavo.bench.kv_heads import TOKENS, perplexity

    old, new = perplexity(before, {}), perplexity(after, {})
    advice = "" if new <= old * _HARMLESS else ": train it further before use"
    screen.say(f"perplexity over {TOKENS:,} tokens: {old:,.3f} before, {new:,.3f} now{advice}")
    return {"perplexity_before": finite(old), "perplexity": finite(new)}
