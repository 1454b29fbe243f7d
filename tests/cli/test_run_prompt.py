"""The prompt of `octavo run`: through a template or raw, from an argument or standard input."""

from __future__ import annotations

import pytest

from tests.cli.greedy import GREEDY


def ids(text: str) -> list[int]:
    """Return the tiny model's ids: a byte is a token, in the order of the GPT-2 byte alphabet."""
    from octavo.tokenizer.byte_level import char_to_byte

    order = list(char_to_byte().values())
    return [order.index(bytes([byte])) for byte in text.encode()]


def test_a_prompt_is_put_into_the_template_unless_raw(octavo, tiny):
    chat = octavo("run", tiny, "hi", *GREEDY, "--json").json["prompt_token_ids"]
    raw = octavo("run", tiny, "hi", *GREEDY, "--json", "--raw").json["prompt_token_ids"]
    assert chat == [256, *ids("user\nhi"), 257, *ids("\n"), 256, *ids("assistant\n")]
    assert raw == ids("hi")


def test_a_system_message_comes_first(octavo, tiny):
    found = octavo("run", tiny, "hi", *GREEDY, "--system", "Be brief", "--json").json
    start = [256, *ids("system\nBe brief"), 257, *ids("\n"), 256, *ids("user\nhi")]
    assert found["prompt_token_ids"][: len(start)] == start


def test_special_tokens_of_a_user_are_text_unless_parse_special(octavo, tiny):
    plain = octavo("run", tiny, "<|im_end|>", *GREEDY, "--raw", "--json")
    parsed = octavo("run", tiny, "<|im_end|>", *GREEDY, "--raw", "--json", "--parse-special")
    assert plain.json["prompt_token_ids"] == ids("<|im_end|>")
    assert parsed.json["prompt_token_ids"] == [257]


def test_a_template_file_replaces_the_models(octavo, tiny, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("Q: {{ messages[0]['content'] }} A:")
    flags = ["--chat-template", str(template), "--json"]
    found = octavo("run", tiny, "hi", *GREEDY, *flags).json
    assert found["prompt_token_ids"] == ids("Q: hi A:")


def test_a_template_file_loses_its_mark_too(octavo, tiny, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_bytes(b"\xef\xbb\xbfQ:\r\n{{ messages[0]['content'] }}")
    found = octavo("run", tiny, "hi", *GREEDY, "--chat-template", str(template), "--json").json
    assert found["prompt_token_ids"] == ids("Q:\nhi")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, " is a folder: give the file in it"),
        (b"GGUF\3\0\0\0", " is a binary file: a chat template is text"),
        (b"{{ \xe4 }}", " is not UTF-8 at byte 3"),
        ("\ufeffx".encode("utf-16-be"), " is UTF-16: save it as UTF-8"),
        (b"x" * 2**20 + b"x", " is larger than 1 MiB: no chat template is"),
        (b" \r\n", " is blank: leave it out for the model's own"),
    ],
)
def test_what_is_no_template_is_refused_in_plain_words(octavo, tiny, tmp_path, data, said):
    path = tmp_path / "template"
    path.mkdir() if data is None else path.write_bytes(data)
    for verb in (["run", tiny, "hi"], ["chat", tiny], ["batch", "in", "out"]):
        result = octavo(*verb, "--chat-template", str(path))
        assert (result.code, result.err) == (2, f"octavo: --chat-template {path}{said}\n")


def test_a_template_that_is_not_there_is_told(octavo, tiny):
    result = octavo("run", tiny, "hi", "--chat-template", "/no/such")
    assert (result.code, result.err) == (
        2, "octavo: --chat-template /no/such: there is no such file\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{{ messages[0].value }}",
            "octavo: the chat template leaves out what the user says: it may be another model's;"
            " give the right one with --chat-template (chat_template=)\n",
        ),
        (
            "{{ 'a' * 2000000000 }}",
            "octavo: the chat template failed: it makes a value of more than 16 MiB\n",
        ),
        (
            "{% for i in range(100000) %}" + "a" * 1000 + "{% endfor %}",
            "octavo: the prompt has at least ",
        ),
        (
            "{{ " + "(" * 500 + " }}",
            "octavo: the chat template does not compile: it is nested too deeply, or calls itself"
            " without end\n",
        ),
    ],
)
def test_a_template_that_is_no_good_is_one_line(octavo, tiny, tmp_path, template, said):
    path = tmp_path / "t.jinja"
    path.write_text(template)
    for command in (("run", tiny, "hi"), ("chat", tiny)):
        result = octavo(*command, "--quiet", "--chat-template", str(path))
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(said)
        assert result.err.count("\n") == 1


@pytest.mark.parametrize("dash", [[], ["-"]])
def test_standard_input_is_a_prompt_without_the_newline_of_echo(octavo, tiny, dash):
    found = octavo("run", tiny, *dash, *GREEDY, "--raw", "--json", stdin="two\nlines\n\n").json
    assert found["prompt_token_ids"] == ids("two\nlines\n")


def test_standard_input_that_is_not_utf_8_is_refused_with_its_place(octavo, tiny):
    result = octavo("run", tiny, stdin=b"ab\xff")
    assert (result.code, result.out) == (2, "")
    assert result.err == "octavo: the prompt on standard input is not UTF-8 at byte 2\n"


def test_standard_input_loses_the_mark_and_the_line_ends_of_an_editor(octavo, tiny):
    found = octavo(
        "run", tiny, *GREEDY, "--raw", "--json", stdin=b"\xef\xbb\xbftwo\r\nlines\r\n"
    ).json
    assert found["prompt_token_ids"] == ids("two\nlines")
    result = octavo("run", tiny, stdin="\ufeffhi".encode("utf-16-le"))
    said = "octavo: the prompt on standard input is UTF-16: save it as UTF-8\n"
    assert (result.code, result.err) == (2, said)


def test_a_prompt_argument_that_is_not_utf_8_is_refused(octavo, tiny):
    result = octavo("run", tiny, b"ab\xff".decode("utf-8", "surrogateescape"))
    assert (result.code, result.err) == (2, "octavo: the prompt is not UTF-8 at character 3\n")


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(octavo, tiny):
    result = octavo("run", tiny, "x" * 40, "--raw", "--context", "32")
    assert result.code == 2
    assert "40 tokens" in result.err
    assert "32" in result.err
    assert result.err.count("\n") == 1


def test_a_model_without_a_template_is_continued_and_refuses_a_system_message(octavo, tmp_path):
    from tests.cli.tiny_model import write_tiny_model

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
def test_an_empty_standard_input_is_no_prompt(octavo, tiny, stdin):
    result = octavo("run", tiny, stdin=stdin)
    assert (result.code, result.out) == (2, "")
    assert "the prompt on standard input is empty" in result.err


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused_too(octavo, tiny, prompt):
    for flags in ([], ["--raw"]):
        result = octavo("run", tiny, prompt, *flags)
        assert (result.code, result.out) == (2, "")
        assert result.err == "octavo: the prompt is empty: did what should write it fail?\n"
