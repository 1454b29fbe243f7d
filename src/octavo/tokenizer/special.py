"""Finding special tokens in a text.

Comes in: token texts. Goes out: the text cut into plain strings and ids. Knows no BPE and no chat.
A leftmost, longest search by first character and length: a vocabulary may have thousands of
specials (gemma has 6,249), too many for one regular expression.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

Fragment = str | int  # plain text, or the id of a special token

# Unicode's White_Space property; str.strip() would take U+001C..U+001F too.
_WHITE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
)


def without_white(
    fragments: Iterable[Fragment], left: frozenset[int], right: frozenset[int]
) -> list[Fragment]:
    """The fragments without the white space before the ids in `left` and after those in `right`."""
    result: list[Fragment] = []
    for fragment in fragments:
        last = result[-1] if result else None
        if isinstance(fragment, str):
            if isinstance(last, int) and last in right:
                fragment = fragment.lstrip(_WHITE)
        elif fragment in left and isinstance(last, str):
            result[-1:] = [kept] if (kept := last.rstrip(_WHITE)) else []
        if fragment != "":
            result.append(fragment)
    return result


class SpecialMatcher:
    """Cuts texts at `parsed` tokens; nothing is found inside the `opaque` ones."""

    def __init__(self, parsed: dict[str, int], opaque: Iterable[str] = ()) -> None:
        self._ids: dict[str, int | None] = dict.fromkeys(opaque)
        self._ids.update(parsed)
        sizes: dict[str, set[int]] = {}
        for text in self._ids:
            sizes.setdefault(text[0], set()).add(len(text))
        self._sizes = {first: sorted(found, reverse=True) for first, found in sizes.items()}
        self._texts = sorted(parsed)
        self._longest_part = max(map(len, parsed), default=1) - 1
        self._reversed_texts = sorted(text[::-1] for text in parsed)
        firsts = "".join(re.escape(first) for first in sizes)
        self._first = re.compile(f"[{firsts}]" if firsts else r"(?!)")

    def split(self, text: str) -> list[Fragment]:
        """`text` as plain strings (none empty) and ids, in order."""
        fragments: list[Fragment] = []
        done = 0
        for start, end, token_id in self.matches(text):
            if start > done:
                fragments.append(text[done:start])
            fragments.append(token_id)
            done = end
        if done < len(text):
            fragments.append(text[done:])
        return fragments

    def matches(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(start, end, id) of each special token in `text`."""
        at = 0
        while found := self._first.search(text, at):
            start = found.start()
            size = self._longest(text, start)
            at = start + max(size, 1)
            token_id = self._ids.get(text[start:at])
            if size and token_id is not None:
                yield start, at, token_id

    def beginning_at_end(self, text: str) -> int:
        """How many characters at the end of `text` begin, but do not complete, a special token."""
        size = min(self._longest_part, len(text))
        return _overlap(self._texts, size, lambda size: text[-size:])

    def ending_at_start(self, text: str) -> int:
        """How many characters at the start of `text` end a special token that began before it."""
        size = min(self._longest_part, len(text))
        return _overlap(self._reversed_texts, size, lambda size: text[:size][::-1])

    def is_inside_one(self, text: str) -> bool:
        """Whether the whole `text` is a part of some special token."""
        return any(text in token for token in self._texts)

    def _longest(self, text: str, start: int) -> int:
        """Length of the longest token at `start`, 0 for none."""
        for size in self._sizes[text[start]]:
            if text[start : start + size] in self._ids and start + size <= len(text):
                return size
        return 0


def _overlap(tokens: list[str], longest: int, part: Callable[[int], str]) -> int:
    """The largest size for which `part(size)` begins a longer string in the sorted `tokens`."""
    for size in range(longest, 0, -1):
        piece = part(size)
        at = bisect_right(tokens, piece)  # the first token after `piece` itself
        if at < len(tokens) and tokens[at].startswith(piece):
            return size
    return 0
