"""`octavo simulate`: how much of a trace a cache would find, by its size and eviction policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from octavo.cli.command import Argument, Flag, Group
from octavo.cli.figures import columns, number
from octavo.cli.flags import AsJson
from octavo.cli.screen import Screen
from octavo.errors import UsageError, counted, unknown_option
from octavo.planning.simulate import POLICIES, TRACE_BLOCK, Simulation, read_trace, simulate

Trace = Annotated[
    Path,
    Argument(metavar="TRACE", help="Requests, one a line, in Mooncake's format (hash_ids)."),
]
Blocks = Annotated[
    list[int],
    Flag(
        metavar="N",
        help=f"Blocks of {TRACE_BLOCK} tokens in the pool; may be given again.",
        shows_default=False,
    ),
]
Policy = Annotated[str, Flag(help="Which findable block is evicted: lru, cost or both.")]

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"lru": ("lru",), "cost": ("cost",), "both": tuple(POLICIES)}
)


def register(app: Group) -> None:
    app.add("simulate", simulate_trace)


def simulate_trace(
    trace: Trace, *, blocks: Blocks, policy: Policy = "both", json: AsJson = False
) -> None:
    """Replay a trace through the block pool, without a model.

    Says what is found in the cache, by the size of the pool and by policy.
    """
    if policy not in CHOICES:
        raise unknown_option("policy", policy, list(CHOICES))
    if min(blocks) < 1:
        raise UsageError(f"--blocks {min(blocks)}: expected at least 1")
    screen = Screen(json)
    requests = read_trace(trace)
    rows = [
        [simulate(requests, num_blocks=n, policy=p) for p in CHOICES[policy]]
        for n in (*dict.fromkeys(blocks), None)
    ]
    screen.say(
        f"{counted(len(requests), 'request')}, {counted(rows[0][0].input_tokens, 'input token')}"
    )
    screen.say(_table(rows))
    screen.result(
        {
            "trace": str(trace),
            "requests": len(requests),
            "block_tokens": TRACE_BLOCK,
            "runs": [each.to_dict() for row in rows for each in row],
        }
    )


def _table(rows: Sequence[Sequence[Simulation]]) -> str:
    """A line for each size of the pool, the policies beside each other."""
    policies = [each.policy.upper() for each in rows[0]]
    heads = [f"{p} {what}" for p in policies for what in ("hits", "evicted", "us/block")]
    lines = [["BLOCKS", *heads, *(["GAIN"] if len(policies) > 1 else [])]]
    for row in rows:
        size = row[0].num_blocks
        cells = ["unlimited" if size is None else f"{size:,}"]
        for each in row:
            cells += [f"{each.hit_rate:.3f}", f"{each.evictions:,}"]
            cells += [number(each.us_per_block_operation)]
        lines.append(cells + [_gain(row[0], other) for other in row[1:]])
    return columns(lines, indent="")


def _gain(lru: Simulation, other: Simulation) -> str:
    """Hits more than LRU's, of LRU's; nothing to say where LRU has none."""
    return f"{100 * (other.hit_tokens / lru.hit_tokens - 1):+.1f} %" if lru.hit_tokens else "-"
