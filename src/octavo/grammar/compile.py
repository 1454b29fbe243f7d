"""Grammars: the compiled grammars of one vocabulary, the last ones that were asked for. Any thread
may ask; compiling takes from 1 to some 250 ms, and does not hold the GIL for it.
"""

from __future__ import annotations

import importlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType

from octavo.constraint import Constraint
from octavo.errors import UsageError
from octavo.grammar.spec import GrammarSpec
from octavo.grammar.vocabulary import Vocabulary

_MOST_KEPT = 32


class Grammars:
    def __init__(self, make_vocabulary: Callable[[], Vocabulary]) -> None:
        """The vocabulary is made with the first grammar: it takes as long as many grammars."""
        self._make_vocabulary = make_vocabulary
        self._vocabulary: Vocabulary | None = None
        self._compile: Callable[[GrammarSpec], Constraint] | None = None
        self._kept: OrderedDict[GrammarSpec, Constraint] = OrderedDict()  # the oldest use first
        self._lock = threading.Lock()  # of what is kept: never held for longer than a look
        self._compiling = threading.Lock()

    @property
    def vocabulary(self) -> object | None:
        """What constraints made here are for; None before the first."""
        return self._vocabulary

    def find(self, spec: GrammarSpec) -> Constraint | None:
        """Return one that is compiled, at once."""
        with self._lock:
            found = self._kept.get(spec)
            if found is not None:
                self._kept.move_to_end(spec)
            return found

    def compile(self, spec: GrammarSpec) -> Constraint:
        """Raises GrammarError, and UsageError where llguidance is not installed."""
        with self._compiling:
            made = self.find(spec) or self._compiler()(spec)
        with self._lock:
            self._kept[spec] = made
            self._kept.move_to_end(spec)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return made

    def _compiler(self) -> Callable[[GrammarSpec], Constraint]:
        if self._compile is None:
            library = _library()
            self._vocabulary = self._make_vocabulary()
            self._compile = library.Compiler(self._vocabulary)
        return self._compile


def _library() -> ModuleType:
    try:
        return importlib.import_module("octavo.grammar.library")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "llguidance":
            raise
        raise UsageError("grammars need llguidance: pip install 'octavo[server]'") from None
