"""Compiled grammars: which documents they accept, which tokens they allow, which they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from octavo.errors import ConstraintError, GrammarError, UsageError
from octavo.grammar import Grammars, GrammarSpec, Vocabulary
from tests.grammar.toy import (
    BYTE,
    CONTROL,
    EMPTY,
    END,
    OTHER_END,
    TOKENS,
    UNREADABLE,
    accepts,
    allowed,
    compiled,
    longest_first,
    texts,
    vocabulary,
)

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case["schema"])[:40])
def test_documents_of_a_schema(case: dict[str, Any]) -> None:
    spec = GrammarSpec.of(json=case["schema"])
    if "refused" in case:
        with pytest.raises(GrammarError) as refused:
            compiled(spec)
        assert case["refused"] in str(refused.value)
        assert "\n" not in str(refused.value)
        return
    grammar = compiled(spec)
    for document in case["valid"]:
        assert accepts(grammar, json.dumps(document)), document
    for document in case["invalid"]:
        assert not accepts(grammar, json.dumps(document)), document


def test_blanks_between_tokens_are_bounded() -> None:
    grammar = compiled(GrammarSpec.of(json={"const": [1]}))
    assert accepts(grammar, "[" + " \n\t\r" * 8 + "1]")
    assert not accepts(grammar, "[" + " " * 33 + "1]")


@pytest.mark.parametrize(
    ("spec", "right", "wrong"),
    [
        (GrammarSpec.of(regex="[ab]{2,3}"), ["ab", "bbb"], ["a", "abab", "ac", ""]),
        (GrammarSpec.of(regex=r"a/\d\n\""), ['a/5\n"'], ['a/x\n"', "a5\n"]),
        (GrammarSpec.of(lark='start: "a" b\nb: /b+/ | "c"'), ["abb", "ac"], ["a", "b", "acc"]),
        (GrammarSpec("json_object"), ["{}", '{"a": [1]}'], ["[]", "1", "{"]),
    ],
)
def test_other_kinds(spec: GrammarSpec, right: list[str], wrong: list[str]) -> None:
    grammar = compiled(spec)
    assert [accepts(grammar, text) for text in right] == [True] * len(right)
    assert [accepts(grammar, text) for text in wrong] == [False] * len(wrong)


def test_a_choice_is_one_of_its_texts_to_the_letter() -> None:
    odd = ['say "a"', "back\\slash", "é\n", "<|im_end|>", "/x/i", "\x00", "a", "ab", "🦑", "start:"]
    odd += ["a\x7f", "\x1f\x80"]
    grammar = compiled(GrammarSpec.of(choice=odd))
    for text in odd:
        assert accepts(grammar, text), text
        assert not accepts(grammar, text + "!")
    assert not accepts(grammar, "say a")
    assert not accepts(grammar, "/x/")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (GrammarSpec.of(regex="("), "unclosed group"),
        (GrammarSpec.of(regex="a(?=b)"), "look-around"),
        (GrammarSpec.of(lark="start: foo"), 'unknown name: "foo"'),
        (GrammarSpec.of(lark=""), "the grammar is not supported"),
        (GrammarSpec.of(lark="start: @foo"), "unknown grammar @foo"),
        (GrammarSpec.of(lark='start: %json {"not": {}}'), "has not, which grammars do not"),
        (GrammarSpec.of(json={"enum": []}), "anyOf is empty"),
        (GrammarSpec.of(lark="start: start"), "allows nothing that the model has a token for"),
    ],
)
def test_what_is_refused_is_said_in_one_line(spec: GrammarSpec, complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint) as refused:
        compiled(spec)
    assert "\n" not in str(refused.value)
    assert "verbose" not in str(refused.value)


def test_control_tokens_and_padding_are_never_allowed_in_a_text() -> None:
    state = compiled(GrammarSpec.of(regex="(.|\n)*")).start()
    every = set(range(len(TOKENS)))
    found = allowed(state)
    assert found <= every - {CONTROL, UNREADABLE, EMPTY}
    assert {END, OTHER_END, BYTE + ord("<"), BYTE + ord("\n")} <= found
    assert b"<|im_start|>" not in texts(state)
    for byte in b"<|im_start|>":  # its name may be spelt, and is text
        state.accept(BYTE + byte)
    assert {END, OTHER_END} <= allowed(state)


def test_an_end_token_is_allowed_where_the_answer_may_end_and_nowhere_else() -> None:
    state = compiled(GrammarSpec.of(regex="a+b?")).start()
    assert texts(state) == {b"a"}
    assert END not in allowed(state)
    state.accept(BYTE + ord("a"))
    assert allowed(state) == {END, OTHER_END, BYTE + ord("a"), BYTE + ord("b")}
    other = state.fork()
    state.accept(BYTE + ord("b"))
    assert allowed(state) == {END, OTHER_END}
    other.accept(OTHER_END)
    assert [state.is_done, other.is_done] == [True, True]


def test_a_vocabulary_without_ends_has_answers_that_are_done() -> None:
    state = Grammars(lambda: vocabulary(ends=())).compile(GrammarSpec.of(regex="ab?")).start()
    state.accept(BYTE + ord("a"))
    assert texts(state) == {b"b"}
    assert allowed(state) == {BYTE + ord("b")}
    state.accept(BYTE + ord("b"))
    assert state.is_done


def test_what_no_token_can_spell_ends_the_answer() -> None:
    few = Vocabulary([b"a", b"b", b"<end>"], hidden=[2], ends=[2], encode=lambda text: [])
    state = Grammars(lambda: few).compile(GrammarSpec.of(regex="a(c|d)")).start()
    assert allowed(state) == {0}
    state.accept(0)
    with pytest.raises(ConstraintError, match="nothing that the model has a token for"):
        allowed(state)


def test_forks_know_nothing_of_each_other() -> None:
    state = compiled(GrammarSpec.of(regex="[ab]{3}x|aac")).start()
    twins = [state.fork() for _ in range(3)]
    for twin, text in zip(twins, (b"aa", b"ab", b""), strict=True):
        for byte in text:
            twin.accept(BYTE + byte)
    assert [texts(twin) for twin in twins] == [{b"a", b"b", b"c"}, {b"a", b"b"}, {b"a", b"b"}]
    assert texts(state) == {b"a", b"b"}


def test_masks_are_a_function_of_the_tokens() -> None:
    """Whatever masks were asked for on the way, and whatever others did with the grammar."""
    grammar = compiled(GrammarSpec.of(json={"type": "object"}))
    text = b'{"key": [1, 2.5, {"deep": "text \\n"}], "true": true}'
    asked, silent = grammar.start(), grammar.start()
    for at, byte in enumerate(text):
        if at % 3:
            allowed(asked)
            allowed(asked)
        for state in (asked, silent):
            state.accept(BYTE + byte)
        if at % 7 == 0:
            fresh = grammar.start()
            for before in text[: at + 1]:
                fresh.accept(BYTE + before)
            assert allowed(asked) == allowed(silent) == allowed(fresh)
    assert asked.is_done
    assert silent.is_done


def test_the_last_grammars_are_kept() -> None:
    grammars = Grammars(vocabulary)
    specs = [GrammarSpec.of(choice=[f"{i}"]) for i in range(33)]
    made = [grammars.compile(spec) for spec in specs[:32]]
    assert grammars.compile(specs[0]) is made[0]
    grammars.compile(specs[32])
    assert grammars.find(specs[0]) is made[0]
    assert grammars.find(specs[1]) is None
    assert grammars.vocabulary is made[0].vocabulary


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "octavo.grammar.library", raising=False)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match=r"need llguidance: pip install 'octavo\[server\]'"):
        Grammars(vocabulary).compile(GrammarSpec.of(regex="a"))


def test_importing_octavo_does_not_import_the_library() -> None:
    code = "import sys, octavo, octavo.serving.async_engine; print('llguidance' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_a_lark_grammar_is_never_taken_for_a_list_of_grammars() -> None:
    """Which would have options of its own, past the limits."""
    hidden = {"x-guidance": {"lenient": True}, "not": {}}
    with pytest.raises(GrammarError, match="not supported"):
        compiled(GrammarSpec.of(lark=json.dumps({"grammars": [{"json_schema": hidden}]})))


def test_where_only_an_end_could_follow_that_there_is_not_the_answer_ends() -> None:
    few = Vocabulary([b"a"], hidden=[], ends=[], encode=lambda text: [])
    state = Grammars(lambda: few).compile(GrammarSpec.of(regex="ab?")).start()
    assert allowed(state) == {0}
    state.accept(0)
    with pytest.raises(ConstraintError, match="nothing that the model has a token for"):
        allowed(state)


def test_a_text_that_is_forced_again_is_spelled_once() -> None:
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return longest_first(text)

    vocabulary = Vocabulary(TOKENS, hidden=[CONTROL, UNREADABLE, END], ends=[END], encode=encode)
    long = "b" * 100
    grammar = Grammars(lambda: vocabulary).compile(GrammarSpec.of(choice=["short!", f"x{long}"]))

    def spelled(first: str) -> list[str]:
        asked.clear()
        state = grammar.start()
        state.accept(BYTE + ord(first))
        allowed(state)
        return list(asked)

    assert "short!" in spelled("s")
    assert spelled("s") == []
    for _ in range(2):  # too long to be kept
        assert f"x{long}" in spelled("x")


@pytest.mark.parametrize("letter", ["b", "é", "漢", "🙂"])
def test_of_a_long_text_the_beginning_alone_is_spelled(letter: str) -> None:
    """Else each step would take as long as the text, for all that are answered beside it."""
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return [BYTE + byte for byte in text.encode()]

    vocabulary = Vocabulary(TOKENS, hidden=[CONTROL, UNREADABLE, END], ends=[END], encode=encode)
    text = "x" + letter * 1100
    state = Grammars(lambda: vocabulary).compile(GrammarSpec.of(choice=[text])).start()
    for at, byte in enumerate(text.encode()):
        if at % 100 < 4:
            assert allowed(state) == {BYTE + byte}
        state.accept(BYTE + byte)
    assert allowed(state) == {END}
    assert max(len(each.encode()) for each in asked) <= 1024
    assert text.startswith(asked[0])
