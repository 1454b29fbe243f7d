"""`octavo cache`: the KV cache of a running server, looked at and cleared."""

from __future__ import annotations

from typing import Annotated, Any

from octavo.cli.command import Flag, Group
from octavo.cli.figures import columns, pairs, percent, size
from octavo.cli.flags import AsJson
from octavo.cli.running_server import RunningServer
from octavo.cli.screen import Screen, one_line
from octavo.errors import counted

Url = Annotated[
    str, Flag(help="Where the server is, as `octavo serve` says; the key: OCTAVO_API_KEY.")
]
_HERE = "http://127.0.0.1:8000"
_WIDEST = 60  # characters of a prefix


def register(app: Group) -> None:
    cache = Group("cache", help="Look at a running server's cache, or clear it.")
    cache.add("ls", list_prefixes)
    cache.add("stats", stats)
    cache.add("clear", clear)
    app.add_command(cache)


def list_prefixes(url: Url = _HERE, json: AsJson = False) -> None:
    """List what several of your prompts began with, and what is pinned."""
    screen, found = Screen(json), RunningServer(url).get("/v1/cache")
    prefixes = found["prefixes"]
    if prefixes:
        rows = [(_shown(each["text"]), f"{each['num_tokens']:,}", f"{each['num_hits']:,}")
                for each in prefixes]  # fmt: skip
        screen.say(columns([("begins with", "tokens", "hits"), *rows], indent=""))
    else:
        screen.say("no prompt began as an earlier one did")
    for pin in found["pins"]:
        screen.say(f"pinned: {counted(pin['num_tokens'], 'token')}")
    screen.result({"prefixes": prefixes, "pins": found["pins"]})


def stats(url: Url = _HERE, json: AsJson = False) -> None:
    """Say how full the cache is."""
    screen, found = Screen(json), RunningServer(url).get("/v1/cache")
    screen.say(pairs(_figures(found)))
    screen.result({name: found[name] for name in ("model", "counts", "waste")})


def clear(url: Url = _HERE, json: AsJson = False) -> None:
    """Forget all that no running request holds, and all pins.

    A server with keys wants one with `admin`.
    """
    screen, found = Screen(json), RunningServer(url).post("/v1/cache/clear")
    screen.say(f"{counted(found['blocks'], 'block')} forgotten")
    screen.result({"blocks": found["blocks"]})


def _figures(found: dict[str, Any]) -> list[tuple[str, str]]:
    counts = found["counts"]
    used, kept, empty = (size(counts[f"kv_bytes_{name}"]) for name in ("used", "kept", "empty"))
    return [
        ("model", found["model"]),
        ("requests", f"{counts['running']:,} run, {counts['waiting']:,} wait"),
        ("blocks", f"{counts['kv_blocks_used']:,} of {counts['kv_blocks_total']:,} in use, "
         f"{counts['kv_blocks_pinned']:,} of them pinned; {counts['kv_blocks_kept']:,} kept"),
        ("memory", f"{used} in use, {kept} kept for reuse, {empty} empty"),
        ("waste", f"{percent(found['waste'])} of the slots in use hold no token"),
        ("so far", f"{counted(counts['kv_blocks_evicted'], 'block')} evicted, "
         f"{counts['kv_blocks_copied']:,} copied"),
    ]  # fmt: skip


def _shown(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"
