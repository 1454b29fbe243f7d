"""Names across processes: fixed, and different for whatever differs."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kv_cache import block_names
from octavo.kv_cache.block_names import Namespace, block_name, root_name

PLAIN = Namespace("f", "n", "bf16", "int8")


def test_names_never_change() -> None:
    """Pages on disk are found by them: another value here orphans every stored page."""
    root = root_name(replace(PLAIN, adapter="a", salt="s"))
    assert root.hex() == "67329e4a1dd1d5b19219eb166db34cee3713cd869cb56b30fab68ae64dfea2e5"
    assert (
        block_name(root, [1, 2, 50_000]).hex()
        == "994447684d36af9682e3e98eb10e097385232151d843efb7375589a978164202"
    )


def test_a_name_is_the_sha256_of_fields_with_tags_and_lengths() -> None:
    def field(tag: bytes, value: bytes) -> bytes:
        return bytes([len(tag)]) + tag + len(value).to_bytes(8, "little") + value

    tokens = b"".join(t.to_bytes(8, "little") for t in (7, 9))
    want = field(b"kind", b"block") + field(b"parent", b"up") + field(b"tokens", tokens)
    assert block_name(b"up", (7, 9)) == hashlib.sha256(want).digest()


def test_each_field_changes_the_name_of_the_root() -> None:
    changed = [replace(PLAIN, **{field.name: "other"}) for field in fields(PLAIN)]
    assert len({root_name(n) for n in [PLAIN, *changed]}) == 7


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Namespace("ab", "c", "k", "v"), Namespace("a", "bc", "k", "v")),  # lengths
        (Namespace("f", "n", "ab", "c"), Namespace("f", "n", "a", "bc")),
        (Namespace("f", "n", "k", "v", "x"), Namespace("f", "n", "k", "v", "", "x")),  # tags
        (Namespace("f", "n", "k", "v", "x", "y"), Namespace("f", "n", "k", "v", "y", "x")),
        (replace(PLAIN, salt="\ud800"), replace(PLAIN, salt="\ud801")),
        (replace(PLAIN, salt="a\0"), replace(PLAIN, salt="a")),
    ],
)
def test_text_may_not_move_between_fields(left: Namespace, right: Namespace) -> None:
    assert root_name(left) != root_name(right)


texts = st.text("ab\0", max_size=3)
namespaces = st.builds(Namespace, texts, texts, texts, texts, texts, texts)
token_lists = st.lists(st.integers(0, 300), max_size=4)


@settings(deadline=None)
@given(namespaces, namespaces)
def test_equal_names_mean_equal_namespaces(left: Namespace, right: Namespace) -> None:
    assert (root_name(left) == root_name(right)) == (left == right)


@settings(deadline=None)
@given(st.binary(max_size=3), token_lists, st.binary(max_size=3), token_lists)
def test_equal_names_mean_equal_parents_and_tokens(
    parent: bytes, tokens: list[int], other_parent: bytes, other_tokens: list[int]
) -> None:
    same = block_name(parent, tokens) == block_name(other_parent, tuple(other_tokens))
    assert same == ((parent, tokens) == (other_parent, other_tokens))


def test_a_root_and_a_block_never_share_an_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_names, "digest", lambda data: data)
    assert root_name(Namespace("", "", "", "")) != block_name(b"", ())
    assert block_name(b"ab", (1,)) != block_name(b"a", (1,))
