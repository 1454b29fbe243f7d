"""A grammar that holds behind a text."""

from __future__ import annotations

from octavo.constraint import ConstraintState
from octavo.grammar import GrammarSpec
from tests.grammar.toy import BYTE, CONTROL, END, OTHER_END, TOKENS, allowed, compiled, texts

TAG = "</think>"


def begun(*tokens: bytes) -> ConstraintState:
    state = compiled(GrammarSpec.of(regex="[0-9]", after=TAG)).start()
    for token in tokens:
        state.accept(TOKENS.index(token, BYTE))
    return state


def test_before_the_text_all_is_allowed_but_an_end_and_what_goes_beyond() -> None:
    every = set(range(len(TOKENS)))
    beyond = TOKENS.index(b"</think>1")
    assert allowed(begun()) == every - {END, OTHER_END, beyond}
    assert CONTROL in allowed(begun())
    assert not begun(b"x").is_done


def test_a_token_that_would_end_the_text_and_go_on_is_not_allowed() -> None:
    letters = [bytes([byte]) for byte in b"</thin"]
    assert b"k>{" not in texts(begun(*letters))
    assert b"k>{" not in texts(begun(b"</", *letters[2:]))
    assert b"k>{" in texts(begun(*letters[1:]))
    assert b"k>{" in texts(begun())
    assert b"k" in texts(begun(*letters))


def test_the_grammar_begins_behind_the_text_however_it_was_cut() -> None:
    letters = [bytes([byte]) for byte in TAG.encode()]
    for tokens in (letters, [b"</", b"think>"], [b"x</think>"], [b"<", b"</", b"think>"]):
        state = begun(*tokens)
        digits = {b"%d" % digit for digit in range(10)}
        assert texts(state) - {b" ", b"\n", b"\r", b"\t", b"\n\n"} == digits
        assert not allowed(state) & {END, OTHER_END, CONTROL}
        twin = state.fork()
        state.accept(BYTE + ord("7"))
        assert state.is_done
        assert not twin.is_done


def test_a_few_blanks_may_stand_between() -> None:
    state = begun(b"</", b"think>", b"\n\n", b" ")
    assert b"\n" in texts(state)
    state.accept(BYTE + ord("5"))
    assert state.is_done
    many = begun(b"</", b"think>", *[b"\n\n"] * 4)
    assert texts(many) == {b"%d" % digit for digit in range(10)}


def test_forks_before_the_text_part() -> None:
    state = begun(b"</")
    twin = state.fork()
    state.accept(TOKENS.index(b"think>"))
    assert len(texts(twin)) > 200
    assert len(texts(state)) < 20
    assert texts(twin) == texts(begun(b"</"))


def test_every_kind_may_come_after() -> None:
    for spec, first in (
        (GrammarSpec.of(json={"const": 4}, after=TAG), b"4"),
        (GrammarSpec.of(choice=["x", "y"], after=TAG), b"x"),
        (GrammarSpec.of(lark='start: "w"', after=TAG), b"w"),
        (GrammarSpec("json_object", after="!"), b"{"),
    ):
        state = compiled(spec).start()
        for byte in (spec.after or "").encode():
            state.accept(BYTE + byte)
        assert first in texts(state)
        assert END not in allowed(state)
