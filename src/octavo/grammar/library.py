"""The door to llguidance, and the only module that imports it: grammars become matchers.

A matcher's copies share their lexer, which keeps every state that any of them came to, up to a
limit. Were it left at that, one answer could end another, and a grammar that is used for long would
end them all. So what a shared matcher refuses is asked again of one of its own, that was told the
answer's tokens and nothing else; and the next answer begins in a new one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from octavo.constraint import Constraint, ConstraintState, Words
from octavo.errors import ConstraintError, GrammarError
from octavo.grammar.after import After
from octavo.grammar.spec import GrammarSpec, read_choice, read_lark, read_regex, read_schema
from octavo.grammar.vocabulary import Vocabulary

_BLANKS = r"[\x20\x0A\x0D\x09]{1,32}"  # unbounded, small models fill the answer with them
# Each step may spend as much to find out whether a text can still come to an end: some 7 ms. The
# library's own 1,000,000 are 40 ms, of `^a*$` with a minLength of 5,000 in each step.
_FUEL = 200_000
# Where any of 1,000 properties may come next, a row of the parser has four items of each. By the
# library's own 2,000 answers to such schemas would end at once.
_ROW_ITEMS = 5_000
_SPELLINGS, _SHORT = 4_096, 64  # texts kept, and the bytes of the longest
_SPELLED = 1_024  # bytes of a text that are spelled: far more than a token has
_ROW_IS_FULL = "Current row has"  # as the library says it
_NOTHING = "allows nothing that the model has a token for"
_BLANKS_FIRST = r"BLANKS: /[\x20\x0A\x0D\x09]{1,8}/"


class Compiler:
    """Grammars of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, *, most_states: int = 20_000) -> None:
        """`most_states`: of the lexer that all matchers of a grammar share."""
        self.vocabulary = vocabulary
        self._tokenizer = _tokenizer(vocabulary)
        # The library sees ends that the vocabulary does not have, where it has none.
        self._num_words = -(-self._tokenizer.vocab_size // 32)
        self._limits = LLParserLimits(
            initial_lexer_fuel=_FUEL,
            max_lexer_states=most_states,
            max_items_in_row=_ROW_ITEMS,
            verbose_errors=False,
        )
        # Masks are asked for by one thread, the engine's, which needs them quickly.
        self._words = np.zeros(self._num_words, np.uint32)
        self._place = self._words.ctypes.data, self._words.nbytes
        num_tokens = len(vocabulary.tokens)
        self._seen = self._words[: vocabulary.num_words]
        self._beyond = np.uint32((1 << num_tokens % 32) - 1) if num_tokens % 32 else None

    def __call__(self, spec: GrammarSpec) -> Constraint:
        """Raises GrammarError."""
        grammar = Grammar(self, _source(spec))
        return grammar if spec.after is None else After(grammar, self.vocabulary, spec.after)

    def matcher(self, source: str) -> LLMatcher:
        return LLMatcher(self._tokenizer, source, limits=self._limits, log_level=0)

    def mask(self, matcher: LLMatcher) -> Words:
        """What the matcher allows, until the next one is asked for; of one that failed,
        anything."""
        matcher.unsafe_compute_mask_ptr(*self._place)
        if self._beyond is not None:
            self._seen[-1] &= self._beyond
        return self._seen


class Grammar:
    """A Constraint: the answer is what the grammar says."""

    def __init__(self, compiler: Compiler, source: str) -> None:
        """Raises GrammarError."""
        self.compiler = compiler
        self._source = source
        self._shared: LLMatcher | None = self.own()
        first = self._shared.deep_copy()
        first.compute_bitmask()  # here, and not in a step: the first takes longest
        for failed in (self._shared, first):
            if failed.is_error():
                raise _refusal(failed.get_error())

    @property
    def vocabulary(self) -> object:
        return self.compiler.vocabulary

    def start(self) -> ConstraintState:
        if self._shared is None:
            self._shared = self.own()
        return GrammarState(self, self._shared.deep_copy(), [])

    def own(self) -> LLMatcher:
        """A matcher that shares nothing."""
        return self.compiler.matcher(self._source)

    def let_go(self) -> None:
        """The shared matcher is full."""
        self._shared = None


class GrammarState:
    def __init__(self, grammar: Grammar, matcher: LLMatcher, tokens: list[int]) -> None:
        self._grammar = grammar
        self._matcher = matcher
        self._tokens = tokens  # that it accepted

    def fill_mask(self, words: Words) -> None:
        compiler = self._grammar.compiler
        mask = compiler.mask(self._matcher)
        if self._matcher.is_error():
            if self._may_differ_alone:
                self._ask_again()
                mask = compiler.mask(self._matcher)
            if self._matcher.is_error():
                raise _end(self._matcher.get_error())
        if len(words) == len(mask):
            words[:] = mask
        else:
            size = min(len(words), len(mask))
            words[:size] = mask[:size]
            words[size:] = 0
        # Else the library itself fails where nothing may follow.
        if not compiler.vocabulary.ends and not words.any():
            raise _end("NoExtension")

    def accept(self, token: int) -> None:
        self._tokens.append(token)
        if not self._matcher.consume_token(token) and self._may_differ_alone:
            self._ask_again()

    def fork(self) -> ConstraintState:
        return GrammarState(self._grammar, self._matcher.deep_copy(), list(self._tokens))

    @property
    def is_done(self) -> bool:
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def _may_differ_alone(self) -> bool:
        """Whether a matcher that shares nothing may go on. Not where a row of the parser is full:
        it would be so again, and to make a matcher takes as long as to compile, in a step."""
        return _ROW_IS_FULL not in self._matcher.get_error()

    def _ask_again(self) -> None:
        """Go on in a matcher of its own, which may refuse too."""
        self._grammar.let_go()
        self._matcher = self._grammar.own()
        self._matcher.consume_tokens(self._tokens)


class _Tokens:
    """A vocabulary in the shape that the library reads."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, ends: Sequence[int]) -> None:
        beyond = [b"<end>"] * (ends[-1] == len(vocabulary.tokens))
        self.tokens = [*vocabulary.tokens, *beyond]
        self.eos_token_id = ends[0]
        self.special_token_ids = sorted({*vocabulary.hidden, *ends})
        self._spell = vocabulary.spell
        self._short = lru_cache(_SPELLINGS)(vocabulary.spell)

    def __call__(self, text: str | bytes) -> list[int]:
        """The library asks for the same few again and again: what its grammars force. It does so
        in each step, for all that is forced from there on, and reads the first of these tokens
        alone: of a long text the others would hold every answer up."""
        spelled = text.encode() if isinstance(text, str) else text
        if len(spelled) > _SPELLED:
            return self._spell(spelled[: _whole(spelled, _SPELLED)])
        return (self._short if len(spelled) <= _SHORT else self._spell)(spelled)


def _whole(text: bytes, most: int) -> int:
    """Up to `most` bytes that end with a character."""
    return next((end for end in range(most, most - 4, -1) if text[end] & 0xC0 != 0x80), most)


def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    """Without an end token the library takes no vocabulary: it gets one that is never drawn."""
    ends = sorted(vocabulary.ends) or [len(vocabulary.tokens)]
    return LLTokenizer(_Tokens(vocabulary, ends), eos_token=ends)  # type: ignore[arg-type]


def _source(spec: GrammarSpec) -> str:
    """The grammar as the library takes it: always as a list of grammars, since it takes a text for
    such a list, with options of its own, if it looks like one."""
    blanks = "" if spec.after is None else "BLANKS?"
    named = [{"name": "body", **_body(spec)}]
    if spec.frame is not None:
        return json.dumps({"grammars": [{"lark_grammar": spec.frame}, *named]})
    if spec.instead is not None:
        named.append({"name": "instead", "lark_grammar": spec.instead})
    either = " | ".join(f"{blanks} @{each['name']}" for each in named)
    start = {"lark_grammar": f"start: {either}\n{_BLANKS_FIRST if blanks else ''}\n"}
    is_plain = not blanks and len(named) == 1
    return json.dumps({"grammars": named if is_plain else [start, *named]})


def _body(spec: GrammarSpec) -> dict[str, Any]:
    if spec.kind in ("json", "json_object"):
        schema = read_schema(spec.source if spec.kind == "json" else '{"type": "object"}')
        return {"json_schema": {**schema, "x-guidance": {"whitespace_pattern": _BLANKS}}}
    if spec.kind == "lark":
        lark = read_lark(spec.source)
    elif spec.kind == "regex":
        regex = read_regex(spec.source)
        (written,) = json.loads(LLMatcher.grammar_from_regex(regex))["grammars"]
        lark = written["lark_grammar"]
    else:
        texts = map(_in_quotes, read_choice(spec.source))
        lark = "start: " + " | ".join(texts)
    return {"lark_grammar": lark}


def _in_quotes(text: str) -> str:
    """A text as Lark has it: as JSON, but that the library wants DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _why(error: str) -> str:
    """What the library says, in one line."""
    line = " ".join(error.replace("<non-verbose/>", "").partition("\n   1 |")[0].split())
    return line[:300]


def _refusal(error: str) -> GrammarError:
    _, found, keys = error.partition("Unimplemented keys: ")
    if found:
        names = keys[1 : keys.index("]")].replace('"', "")
        return GrammarError(f"the schema has {names}, which grammars do not support")
    why = _NOTHING if "NoExtension" in error else f"is not supported: {_why(error)}"
    return GrammarError(f"the grammar {why}")


def _end(error: str) -> ConstraintError:
    if "NoExtension" in error:
        return ConstraintError(f"the grammar {_NOTHING}")
    return ConstraintError(
        f"the answer went beyond the limits of its grammar: {_why(error)}: another seed or a "
        "simpler grammar may do"
    )
