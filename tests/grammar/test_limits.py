"""A grammar that comes to its limits in mid-answer ends that answer, and no other.

Matchers of one grammar share the states of their lexer: without a new one for who comes to the
limit, the first answers would end all that come after them.
"""

from __future__ import annotations

import random

import pytest

from octavo.constraint import Constraint
from octavo.errors import ConstraintError
from octavo.grammar import GrammarSpec, library
from octavo.grammar.library import Compiler
from tests.grammar.toy import BYTE, accepts, allowed, vocabulary

# Each text of a and b needs states of its own.
SPEC = GrammarSpec.of(regex="(a|b)*a(a|b){12}c")
RANDOM = random.Random(3)
TEXTS = [bytes(RANDOM.choices(b"ab", k=60)) for _ in range(40)]


def grammar(states: int) -> Constraint:
    return Compiler(vocabulary(), most_states=states)(SPEC)


def masks(grammar: Constraint, text: bytes) -> list[frozenset[int]]:
    state = grammar.start()
    found = []
    for byte in text:
        found.append(frozenset(allowed(state)))
        state.accept(BYTE + byte)
    return found


def test_many_answers_of_one_grammar_are_what_each_is_alone() -> None:
    shared = grammar(300)
    for text in TEXTS:
        assert masks(shared, text) == masks(grammar(300), text) == masks(grammar(20_000), text)


def test_how_long_a_text_has_to_be_is_kept_where_it_costs_too_much_to_look_ahead() -> None:
    schema = {"type": "string", "pattern": "^a*$", "minLength": 1_500}
    state = Compiler(vocabulary())(GrammarSpec.of(json=schema)).start()
    quote = BYTE + ord('"')
    state.accept(quote)
    for left in range(1_500, 0, -1):
        if left % 20 == 0 or left < 20:  # what is allowed takes most of a step's time
            assert quote not in allowed(state)
        state.accept(BYTE + ord("a"))
    assert quote in allowed(state)


def test_the_limit_is_met_by_all_of_them_together() -> None:
    """Else the test above would say nothing."""
    shared = grammar(300)
    first = shared._shared  # type: ignore[attr-defined]
    for text in TEXTS:
        masks(shared, text)
    assert shared._shared is not first  # type: ignore[attr-defined]


def test_an_answer_that_is_beyond_the_limit_alone_ends() -> None:
    tight = grammar(60)
    with pytest.raises(ConstraintError, match=r"beyond the limits of its grammar: .*many states"):
        masks(tight, TEXTS[0])
    assert masks(tight, b"aa")  # the next one begins anew
    with pytest.raises(ConstraintError, match="beyond the limits"):
        masks(tight, TEXTS[1])


def any_of(properties: int) -> Constraint:
    each = {f"p{i}": {"type": "null"} for i in range(properties)}
    schema = {"type": "object", "properties": each, "additionalProperties": False}
    return Compiler(vocabulary())(GrammarSpec.of(json=schema))


def test_any_of_a_thousand_properties_may_come_next() -> None:
    assert accepts(any_of(1_000), '{"p1":null,"p999":null}')


def test_what_a_matcher_of_its_own_refuses_too_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To make one takes as long as to compile, and a step would wait for it."""
    monkeypatch.setattr(library, "_ROW_ITEMS", 100)
    full = any_of(100)
    state, shared = full.start(), full._shared  # type: ignore[attr-defined]
    state.accept(BYTE + ord("{"))
    with pytest.raises(ConstraintError, match=r"beyond the limits of its grammar: .*row has"):
        allowed(state)
    assert full._shared is shared  # type: ignore[attr-defined]
