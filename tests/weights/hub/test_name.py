"""Names on the hub: their parts, and what is no such name."""

from __future__ import annotations

import pytest

from octavo.errors import UsageError
from octavo.weights.hub.name import HubName, parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf:google/gemma-3-270m", ("google", "gemma-3-270m", "main", None)),
        ("hf:a_b/C.d-1@v1.0", ("a_b", "C.d-1", "v1.0", None)),
        ("hf:a/b@refs/pr/1:x.gguf", ("a", "b", "refs/pr/1", "x.gguf")),
        ("hf:a/b:Q4_K_M/x y@1.gguf", ("a", "b", "main", "Q4_K_M/x y@1.gguf")),
    ],
)
def test_a_name_has_parts_and_is_written_as_it_was(
    text: str, parts: tuple[str, str, str, str | None]
) -> None:
    name = parse(text)
    assert name == HubName(*parts)
    assert str(name) == text
    assert name.of_file("f.gguf") == text.removesuffix(f":{parts[3]}") + ":f.gguf"


@pytest.mark.parametrize(
    "text",
    [
        *("hf:", "hf:gpt2", "hf:/b", "hf:a/", "hf:a/b/c", "hf:a/b@", "hf:a/b:", "hf:a/b:x:y"),
        *("hf:a b/c", "hf:a/-b", "hf:a/b.", "hf:a/b--c", "hf:a/b..c", "hf:../b", "hf:a/b@x y"),
        *("hf:a/b@../../x", "hf:a/b@/x", "hf:a/b:../x.gguf", "hf:a/b:/x.gguf", "hf:a/b:x//y.gguf"),
        *("hf://a/b", "hf:a/b@v1@v2", f"hf:a/{'b' * 95}", "hf:a/b\n"),
    ],
)
def test_what_is_no_name_is_bad_usage(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no name on the hub: expected hf:owner/name, hf:own"):
        parse(text)
