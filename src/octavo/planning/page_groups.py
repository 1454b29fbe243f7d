"""Page groups: which groups of pages a program's K and V lie in, and what each of them keeps.

A layer group has one, and with sinks a second where it sees all tokens: the first tokens of a
sequence are there, and the others in the first. Those of sinks follow all others, in the same
order. Knows positions; knows no bytes, formats or arrays.
"""

from __future__ import annotations

from typing import NamedTuple

from octavo.kv_cache.groups import Keep, KeepAll, KeepEnds, KeepLast
from octavo.program.program import Program


class PageGroup(NamedTuple):
    group: int  # of the program
    keeps: Keep
    window: int  # tokens that a row sees; 0 = all
    beginning: int  # that it sees beside the window
    is_sinks: bool
    sinks: int | None  # the page group that has the first tokens in its place


def page_groups(program: Program, sinks: int, context: int | None = None) -> list[PageGroup]:
    """The groups where the first `sinks` tokens, whole blocks, are kept apart. A window as long as
    the context hides nothing."""
    found = []
    for group, spec in enumerate(program.groups):
        hides = context is None or spec.most_seen < context
        window, beginning = (spec.window, spec.beginning) if hides else (0, 0)
        keeps: Keep = KeepLast(window) if window else KeepAll()
        if beginning:
            keeps = KeepEnds(beginning, window)
        place = None
        if sinks and group in program.full_groups:
            keeps = KeepAll(begin=sinks)
            place = len(program.groups) + program.full_groups.index(group)
        found.append(PageGroup(group, keeps, window, beginning, False, place))
    if sinks:
        kept = KeepAll(end=sinks)
        found += [PageGroup(group, kept, 0, 0, True, None) for group in program.full_groups]
    return found
