"""The prompt of `octavo run`: through a template or raw, from an argument or standard input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from octavo.tokenizer.byte_level import char_to_byte
from tests.cli.result import GREEDY, Octavo, refused
from tests.cli.tiny_model import TINY, write_tiny_model

BYTES = list(char_to_byte().values())
EMPTY = "the prompt is empty: did what should write it fail?"


def ids(text: str) -> list[int]:
    """Return the tiny model's ids: a byte is a token, in the order of the GPT-2 byte alphabet."""
    return [BYTES.index(bytes([byte])) for byte in text.encode()]


def asked(octavo: Octavo, *arguments: str, stdin: str | bytes = "") -> list[int]:
    """The ids of the prompt that the tiny model was asked with."""
    found = octavo("run", TINY, *arguments, *GREEDY, "--json", stdin=stdin).json
    return [*found["prompt_token_ids"]]


def test_a_prompt_is_put_into_the_template_unless_raw(octavo: Octavo) -> None:
    turn = [256, *ids("user\nhi"), 257, *ids("\n"), 256, *ids("assistant\n")]
    assert asked(octavo, "hi") == turn
    assert asked(octavo, "hi", "--raw") == ids("hi")
    system = [256, *ids("system\nBe brief"), 257, *ids("\n")]
    assert asked(octavo, "hi", "--system", "Be brief") == [*system, *turn]
    # Special tokens of a user are text, unless asked for.
    assert asked(octavo, "<|im_end|>", "--raw") == ids("<|im_end|>")
    assert asked(octavo, "<|im_end|>", "--raw", "--parse-special") == [257]


def test_a_given_template_replaces_the_models_without_mark(octavo: Octavo, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    for content, prompt in [
        (b"Q: {{ messages[0]['content'] }} A:", "Q: hi A:"),
        (b"\xef\xbb\xbfQ:\r\n{{ messages[0]['content'] }}", "Q:\nhi"),
    ]:
        template.write_bytes(content)
        assert asked(octavo, "hi", "--chat-template", str(template)) == ids(prompt)


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda path: None, ": there is no such file"),
     (lambda path: path.mkdir(), " is a folder: give the file in it"),
     (lambda path: path.write_bytes(b"GGUF\3\0\0\0"), " is a binary file: a chat template is text"),
     (lambda path: path.write_bytes(b"{{ \xe4 }}"), " is not UTF-8 at byte 3"),
     (lambda path: path.write_bytes("\ufeffx".encode("utf-16-be")), " is UTF-16: save it as UTF-8"),
     (lambda path: path.write_bytes(b"x" * 2**20 + b"x"),
      " is larger than 1 MiB: no chat template is"),
     (lambda path: path.write_bytes(b" \r\n"), " is blank: leave it out for the model's own")],
)  # fmt: skip
def test_what_is_no_template_is_refused_in_plain_words(
    octavo: Octavo, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "template"
    make(path)
    for verb in (["run", TINY, "hi"], ["chat", TINY], ["batch", "in", "out"]):
        result = octavo(*verb, "--chat-template", str(path))
        assert result == refused(f"--chat-template {path}{said}")


@pytest.mark.parametrize(
    ("template", "said"),
    [("{{ messages[0].value }}",
      "the chat template leaves out what the user says: it may be another model's; give the right "
      "one with --chat-template (chat_template=)\n"),
     ("{{ 'a' * 2000000000 }}",
      "the chat template failed: it makes a value of more than 16 MiB\n"),
     ("{% for i in range(100000) %}" + "a" * 1000 + "{% endfor %}", "the prompt has at least "),
     ("{{ " + "(" * 500 + " }}",
      "the chat template does not compile: it is nested too deeply, or calls itself without end"
      "\n")],
)  # fmt: skip
def test_a_template_that_is_no_good_is_one_line(
    octavo: Octavo, tmp_path: Path, template: str, said: str
) -> None:
    path = tmp_path / "t.jinja"
    path.write_text(template)
    for command in (("run", TINY, "hi"), ("chat", TINY)):
        result = octavo(*command, "--quiet", "--chat-template", str(path))
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert result.err.startswith(f"octavo: {said}")


def test_standard_input_is_a_prompt(octavo: Octavo) -> None:
    for dash in ([], ["-"]):  # without the newline of echo
        assert asked(octavo, *dash, "--raw", stdin="two\nlines\n\n") == ids("two\nlines\n")
    edited = b"\xef\xbb\xbftwo\r\nlines\r\n"  # an editor's mark and line ends
    assert asked(octavo, "--raw", stdin=edited) == ids("two\nlines")


@pytest.mark.parametrize(
    ("prompt", "stdin", "complaint"),
    [([], b"ab\xff", "the prompt on standard input is not UTF-8 at byte 2"),
     ([], "\ufeffhi".encode("utf-16-le"),
      "the prompt on standard input is UTF-16: save it as UTF-8"),
     ([b"ab\xff".decode("utf-8", "surrogateescape")], "", "the prompt is not UTF-8 at character 3"),
     ([""], "", EMPTY), ([" \n"], "", EMPTY), (["", "--raw"], "", EMPTY),
     ([" \n", "--raw"], "", EMPTY)],
)  # fmt: skip
def test_a_prompt_that_is_no_text_is_refused(
    octavo: Octavo, prompt: list[str], stdin: str | bytes, complaint: str
) -> None:
    assert octavo("run", TINY, *prompt, stdin=stdin) == refused(complaint)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(octavo: Octavo) -> None:
    result = octavo("run", TINY, "x" * 40, "--raw", "--context", "32")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "40 tokens" in result.err
    assert "32" in result.err


def test_without_a_template_the_prompt_alone_is_continued(octavo: Octavo, tmp_path: Path) -> None:
    bare = str(write_tiny_model(tmp_path / "bare.gguf", template=None))
    continued = octavo("run", bare, "hi", *GREEDY, "--json")
    assert continued.json["prompt_token_ids"] == ids("hi")
    note = f"{bare} has no chat template: the prompt is continued as with --raw\n"
    assert continued.err.startswith(note)
    assert octavo("run", bare, "hi", *GREEDY).err.startswith(note)
    assert "chat template" not in octavo("run", bare, "hi", *GREEDY, "--raw").err
    result = octavo("run", bare, "hi", "--system", "s")
    assert result.code == 2
    assert "has no chat template to put --system into" in result.err
    assert "--chat-template" in octavo("chat", bare).err


@pytest.mark.parametrize("stdin", ["", "\n", " \n\n"])
def test_an_empty_standard_input_is_no_prompt(octavo: Octavo, stdin: str) -> None:
    result = octavo("run", TINY, stdin=stdin)
    assert (result.code, result.out) == (2, "")
    assert "the prompt on standard input is empty" in result.err
