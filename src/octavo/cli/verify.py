"""`octavo verify`: the proof of exactness on this machine, as a table.

The proof is `octavo.verification`'s. A changed bit, or a scenario whose event did not happen, is
exit code 1.
"""

from __future__ import annotations

from pathlib import Path

from click.exceptions import Exit

from octavo.cli.command import Group
from octavo.cli.figures import number
from octavo.cli.flags import ENGINE, AsJson, Model, with_flags
from octavo.cli.loading import find_or_pull
from octavo.cli.screen import Screen
from octavo.config import EngineConfig
from octavo.environment import find_home
from octavo.verification import Report, ScenarioResult, verify
from octavo.weights.fingerprint import known_fingerprint
from octavo.weights.pack_cache import remove_damaged

_FIELDS = ("kv_dtype", "kv_sinks", "threads", "block_size", "weights", "activations")
FLAGS = tuple(flag for flag in ENGINE if flag.name in _FIELDS)
_LINE = "{:<20}  {:>8}  {:>6}  {:<6}  {}"


def register(app: Group) -> None:
    app.add("verify", run)


@with_flags(engine=FLAGS)
def run(model: Model, *, json: AsJson = False, engine: dict[str, object]) -> None:
    """Prove that cache, batch and threads change no bit here.

    The same requests run alone, batched, chunked, shared, forked, preempted, without a cache,
    in other block sizes (but for int4's sinks, which are a block) and on other thread counts.
    Every row of logits that a token is drawn from is compared with that of the request alone,
    computed whole on fresh pages by one thread. Each scenario also proves that what it is about
    happened. Takes seconds to a minute on a small model; exit code 1 if a bit changed. Packed
    weights that were kept are read and checked first.
    """
    screen = Screen(json)
    config = EngineConfig.parse(engine)
    path = find_or_pull(model)
    _check_packed(path, screen)
    screen.say(_LINE.format("scenario", "requests", "rows", "", "what happened"))
    report = verify(path, config, on_result=lambda result: screen.say(_text(result)))
    screen.say(_summary(report))
    chosen = {
        "kv_dtype": config.kv_dtype,
        "kv_sinks": config.kv_sink_tokens,
        "activations": config.activations or "int8",
        "weights": config.weights,
        "block_size": config.block_size,
    }
    screen.result({"model": str(path), **chosen, **report.to_dict()})
    if not report.exact:
        raise Exit(1)


def _check_packed(path: Path, screen: Screen) -> None:
    """Read the kept packed weights whole, which a start does not, before they are run."""
    folder = find_home()
    digest = None if folder is None else known_fingerprint(path, home=folder)
    if folder is not None and digest is not None:
        for each in remove_damaged(folder, digest):
            screen.note(f"octavo: {each.path} was damaged and is removed: it is written again")


def _text(result: ScenarioResult) -> str:
    happened = ", ".join(f"{event} {count:,}" for event, count in result.events.items())
    verdict = "ok" if result.ok else "FAILED"
    rows = f"{result.rows:,}"
    line = _LINE.format(result.name, result.requests, rows, verdict, happened)
    return line if result.ok else f"{line}\n  {result.problem}"


def _summary(report: Report) -> str:
    failed = sum(not s.ok for s in report.scenarios)
    verdict = "every bit equal" if report.exact else f"{failed} of {len(report.scenarios)} FAILED"
    return (
        f"{report.logits:,} logits compared, in {report.rows:,} rows with "
        f"{report.reference_rows:,} of the reference, in {number(report.seconds)} s on "
        f"{report.isa}: {verdict}"
    )
