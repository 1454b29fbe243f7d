"""Grammars: token bytes and a grammar in, the words of a mask out. A leaf: it knows no engine, no
tokenizer and no HTTP, and is all of Octavo that knows llguidance (`library.py`, imported with the
first grammar).
"""

from octavo.grammar.compile import Grammars
from octavo.grammar.spec import GrammarSpec
from octavo.grammar.vocabulary import Vocabulary

__all__ = ["GrammarSpec", "Grammars", "Vocabulary"]
