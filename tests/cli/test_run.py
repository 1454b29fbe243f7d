"""`octavo run` on a real engine and a tiny model: what goes where, and what the flags do."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from math import inf

import pytest

from octavo.cli.screen import printable
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from tests.cli.fake_llm import STATS, FakeLLM
from tests.cli.tiny_model import spm_entries, write_tiny_model

GREEDY = ("--temperature", "0", "--max-tokens", "8")
FIGURES = re.compile(
    r"\[[\d,]+ prompt tokens, [\d,]+ cached, [\d.,]+ tok/s · [\d,]+ new"
    r"(, [\d.,]+ tok/s)? · KV [\d.]+ KiB\]\n"
)


def ids(text: str) -> list[int]:
    """Return the tiny model's ids: a byte is a token, in the order of the GPT-2 byte alphabet."""
    from octavo.tokenizer.byte_level import char_to_byte

    order = list(char_to_byte().values())
    return [order.index(bytes([byte])) for byte in text.encode()]


def test_the_answer_is_on_stdout_and_the_figures_on_stderr(octavo, tiny):
    result = octavo("run", tiny, "hello", *GREEDY)
    found = octavo("run", tiny, "hello", *GREEDY, "--json")
    assert result.code == 0
    assert result.out == printable(found.json["outputs"][0]["text"]) + "\n"
    assert FIGURES.fullmatch(result.err)


def test_json_is_one_line_with_the_names_of_request_output(octavo, tiny):
    result = octavo("run", tiny, "hello", *GREEDY, "--json", "--logprobs", "2")
    assert result.out.count("\n") == 1
    found = result.json
    names = ["prompt_token_ids", "outputs", "usage", "cache", "metrics", "seed"]
    assert list(found) == [*names, "prompt_logprobs", "error", "sampling"]
    assert (found["prompt_logprobs"], found["error"]) == (None, None)
    assert found["usage"] == {"prompt_tokens": 24, "completion_tokens": 8, "cached_tokens": 0}
    assert found["outputs"][0]["finish_reason"] == "length"
    assert len(found["outputs"][0]["logprobs"]) == 8
    assert len(found["outputs"][0]["logprobs"][0]["top"]) == 2


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


def test_a_temperature_of_zero_is_passed_on(octavo, tiny):
    one = octavo("run", tiny, "hello", *GREEDY, "--json", "--seed", "1").json
    two = octavo("run", tiny, "hello", *GREEDY, "--json", "--seed", "2").json
    assert one["outputs"] == two["outputs"]
    assert (one["seed"], two["seed"]) == (1, 2)


def test_a_seed_repeats_a_drawn_answer_and_the_drawn_seed_is_told(octavo, tiny):
    first = octavo("run", tiny, "hello", "--max-tokens", "12", "--json").json
    again = ["--max-tokens", "12", "--json", "--seed", str(first["seed"])]
    assert octavo("run", tiny, "hello", *again).json["outputs"] == first["outputs"]


def test_every_sampling_parameter_has_a_flag(octavo):
    text = octavo("run", "--help").out
    for name in SamplingParams.__dataclass_fields__:
        assert f"--{name.replace('_', '-')} " in text


def test_stop_strings_may_be_given_more_than_once(octavo, tiny):
    text = octavo("run", tiny, "hello", *GREEDY, "--json").json["outputs"][0]["text"]
    assert text[1] == "\x11"
    flags = ["--stop", "never", "--stop", text[1], "--json"]
    found = octavo("run", tiny, "hello", *GREEDY, *flags).json["outputs"][0]
    assert (found["text"], found["finish_reason"]) == (text[0], "stop")


def test_control_tokens_inside_an_answer_are_told_and_a_stop_string_may_name_one(octavo, tiny):
    flags = ["--seed", "5", "--temperature", "1", "--top-p", "1", "--max-tokens", "100"]
    drawn = octavo("run", tiny, "hello", *flags, "--ignore-eos", "--json")
    answer = drawn.json["outputs"][0]
    inside = [(at, i) for at, i in enumerate(answer["token_ids"]) if i >= 256]
    assert inside == [(38, 256), (45, 257), (46, 256), (73, 256)]
    assert "[drawn, not shown: <|im_start|> (3), <|im_end|>]\n" in drawn.err
    stop = ["--ignore-eos", "--stop", "<|im_start|>"]
    found = octavo("run", tiny, "hello", *flags, *stop, "--json")
    stopped = found.json["outputs"][0]
    assert stopped["token_ids"] == answer["token_ids"][:39]
    assert stopped["finish_reason"] == "stop"
    assert answer["text"].startswith(stopped["text"].removesuffix("\ufffd"))
    assert "not shown" not in found.err  # it was asked for
    ended = octavo("run", tiny, "hello", *flags)
    assert "[drawn, not shown: <|im_start|>]\n" in ended.err  # not what ended it


def test_escapes_of_a_stop_string_are_read_and_no_others(octavo, monkeypatch):
    given = []

    class Asked(FakeLLM):
        def stream(self, prompt, params, options=None):
            given.append(params.stop)
            return super().stream(prompt, params, options)

    monkeypatch.setattr("octavo.cli.run.open_llm", lambda model, engine: Asked(["Hel"]))
    stops = {r"\n": "\n", r"a\r\n\tb": "a\r\n\tb", r"\\n": r"\n", r"\\\\": r"\\", "\n": "\n"}
    flags = [word for stop in stops for word in ("--stop", stop)]
    octavo("run", "m", "hi", "--chat-template", __file__, *flags)
    assert given == [tuple(stops.values())]
    for stop, escape in ((r"\d+", r"\d"), ("a\\", "\\"), (r"\x0a", r"\x")):
        result = octavo("run", "m", "hi", "--stop", stop)
        known = r"there are \n, \t, \r, and \\ for a backslash"
        said = f"octavo: --stop {stop}: {escape} is no escape: {known}\n"
        assert (result.code, result.err) == (2, said)


def test_several_answers_are_printed_one_after_another_each_under_a_line(octavo, tiny):
    flags = ["--max-tokens", "8", "--seed", "3", "--n", "3"]
    found = octavo("run", tiny, "hello", *flags, "--json").json
    result = octavo("run", tiny, "hello", *flags)
    texts = [answer["text"] for answer in found["outputs"]]
    assert len(set(texts)) == 3
    lines = [f"[{i} of 3 · length]\n{printable(text)}\n" for i, text in enumerate(texts, 1)]
    assert result.out == "".join(lines)
    assert "[24 prompt tokens, 0 cached, " in result.err
    assert " · 24 new, " in result.err


def test_beams_are_answers_best_first_under_their_log_probability(octavo, tiny):
    flags = ["--max-tokens", "4", "--beam-width", "3", "--length-penalty", "0.5"]
    best = octavo("run", tiny, "hello", *flags, "--early-stopping")
    assert best.out.count("\n") == 1  # one answer needs no line above it
    two = octavo("run", tiny, "hello", *flags, "--n", "2", "--json").json["outputs"]
    assert two[0]["cumulative_logprob"] > two[1]["cumulative_logprob"]
    shown = octavo("run", tiny, "hello", *flags, "--n", "2").out
    likely = [f"{answer['cumulative_logprob']:.3g}" for answer in two]
    assert shown == "".join(
        f"[{i} of 2 · length · log-probability {p}]\n{answer['text']}\n"
        for i, (answer, p) in enumerate(zip(two, likely, strict=True), 1)
    )


def test_steps_of_several_answers_cannot_be_traced(octavo, tiny):
    for flag in ("--n", "--beam-width"):
        result = octavo("run", tiny, "hello", flag, "2", "--trace-steps")
        assert (result.code, result.out) == (2, "")
        assert "leave out --n and --beam-width" in result.err


def test_log_probabilities_of_the_prompt_need_every_row(octavo, tiny):
    found = octavo("run", tiny, "hello", *GREEDY, "--prompt-logprobs", "1", "--json").json
    assert len(found["prompt_logprobs"]) == found["usage"]["prompt_tokens"] == 24
    assert found["prompt_logprobs"][0] is None
    assert found["cache"]["reason"] == "needs-all-rows"
    result = octavo("run", tiny, "hello", "--prompt-logprobs", "1")
    assert result.err == "octavo: --prompt-logprobs is shown with --json only: add it\n"


def test_an_answer_in_a_turn_has_no_blank_of_spm_in_front(octavo, tmp_path):
    more = spm_entries("{{ messages[-1].content }}")
    model = str(write_tiny_model(tmp_path / "spm.gguf", more=more))
    greedy = ("--temperature", "0", "--max-tokens", "4", "--json")
    raw = octavo("run", model, "hi", "--raw", *greedy).json
    assert raw["outputs"][0]["text"].startswith(" ")
    for flags in (greedy, ("--beam-width", "1", *greedy[2:])):
        turn = octavo("run", model, "hi", *flags).json
        assert turn["prompt_token_ids"] == raw["prompt_token_ids"]
        assert turn["outputs"][0]["token_ids"] == raw["outputs"][0]["token_ids"]
        assert turn["outputs"][0]["text"] == raw["outputs"][0]["text"][1:]
    messages = octavo("chat", model, *greedy, stdin="hi\n").json["messages"]
    assert messages[-1]["content"] == raw["outputs"][0]["text"][1:]


def test_a_deadline_is_passed_on_and_said(octavo, monkeypatch):
    given = []

    class Late(FakeLLM):
        def stream(self, prompt, params, options=None):
            given.append(options)
            for chunk in super().stream(prompt, params, options):
                late = chunk.output and replace(
                    chunk.output,
                    outputs=(replace(chunk.output.outputs[0], finish_reason="deadline"),),
                )
                yield replace(chunk, output=late)

    monkeypatch.setattr("octavo.cli.run.open_llm", lambda model, engine: Late(["Hel"]))
    result = octavo("run", "m", "hi", "--chat-template", __file__, "--deadline-ms", "40")
    assert given == [RequestOptions(deadline_ms=40, begins_turn=True)]
    assert result.out == "Hel\n"
    assert result.err.startswith("the answer was cut by its deadline\n[")
    result = octavo("run", "m", "hi", "--deadline-ms", "0")
    assert (result.code, result.err) == (
        2,
        "octavo: --deadline-ms 0: expected a whole number from 1 to 2147483647\n",
    )


def test_an_answer_that_fills_the_context_is_said_to_be_cut(octavo, tiny):
    command = ("run", tiny, "hello", "--temperature", "0", "--ignore-eos", "--quiet")
    full = octavo(*command, "--json")
    assert full.json["usage"]["completion_tokens"] == 128 - 24 + 1  # the last is never computed
    assert full.err == "the answer was cut: the context of 128 tokens is full\n"
    short = octavo(*command, "--json", "--max-tokens", "104")
    assert short.json["outputs"][0]["finish_reason"] == "length"
    assert short.err == ""  # as was asked


def test_quiet_leaves_the_answer_alone(octavo, tiny):
    result = octavo("run", tiny, "hello", *GREEDY, "--quiet")
    assert (result.code, result.err) == (0, "")
    assert result.out


def test_stats_are_printed_and_part_of_the_json(octavo, tiny):
    result = octavo("run", tiny, "hello", *GREEDY, "--stats", "--json")
    assert result.json["stats"]["computed_tokens"] == 24 + 7
    assert result.json["stats"].keys() == STATS.keys()
    assert not re.search("[a-z]_[a-z]", result.err)  # people are told in words
    assert "\nmemory: weights 309 KiB, KV 0 B in use, 8 KiB kept for reuse\n" in result.err
    assert "\ntokens: 31 computed, K and V of 189 read; 0 requests preempted\n" in result.err
    assert "\nsteps: 8 in " in result.err
    assert "\ncache: 0 of 24 prompt tokens reused; cold: nothing was kept yet\n" in result.err
    budget = "KV: 1 MiB for up to 4,096 tokens, context 128\n"
    small = octavo("run", tiny, "hello", *GREEDY, "--stats", "--kv-memory", "1M")
    assert budget in small.err
    assert budget not in octavo("run", tiny, "hello", *GREEDY, "--kv-memory", "1M").err


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


def test_trace_steps_shows_the_prompt_computed_once_then_one_token_a_step(octavo, tiny):
    flags = ["--raw", "--trace-steps"]
    lines = octavo("run", tiny, "hello", *GREEDY, *flags).out.splitlines()
    assert lines[0] == "step  computed    read  text so far"
    counts = [[int(word) for word in line.split()[:3]] for line in lines[1:]]
    assert counts == [[0, 5, 0]] + [[n, 1, n + 4] for n in range(1, 8)]
    steps = octavo("run", tiny, "hello", *GREEDY, *flags, "--json").json["steps"]
    assert [[s["step"], s["computed_tokens"], s["kv_read_tokens"]] for s in steps] == counts
    assert all('"hello' in line for line in lines[1:])  # --raw shows what is continued


def test_trace_steps_without_the_cache_computes_the_whole_sequence_for_every_token(octavo, tiny):
    flags = ["--raw", "--trace-steps", "--json"]
    cached = octavo("run", tiny, "hello", *GREEDY, *flags)
    without = octavo("run", tiny, "hello", *GREEDY, *flags, "--no-kv-cache")
    counts = [(s["computed_tokens"], s["kv_read_tokens"]) for s in without.json["steps"]]
    assert counts == [(n, 0) for n in range(5, 13)]
    assert without.json["outputs"] == cached.json["outputs"]
    assert "   7        12       0  " in without.err


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


@pytest.mark.parametrize("verb", [("run", "hi"), ("chat",)])
def test_log_probabilities_that_nothing_would_show_are_refused(octavo, tiny, verb):
    name, *prompt = verb
    result = octavo(name, tiny, *prompt, "--logprobs", "2")
    assert (result.code, result.out) == (2, "")
    assert result.err == "octavo: --logprobs is shown with --json only: add it\n"


@pytest.mark.parametrize(("flags", "out"), [([], "Hel\n"), (["--json"], "")])
def test_ctrl_c_in_an_answer_ends_its_line(octavo, monkeypatch, flags, out):
    def press(index: int) -> None:
        if index == 1:
            os.kill(os.getpid(), signal.SIGINT)

    llm = FakeLLM(["Hel", "lo"], between=press)
    monkeypatch.setattr("octavo.cli.run.open_llm", lambda model, engine: llm)
    result = octavo("run", "m", "hi", "--chat-template", __file__, *flags)
    assert (result.code, result.out, result.err) == (130, out, "")


def test_engine_flags_reach_the_engine(octavo, tiny, monkeypatch):
    given = []

    def remember(model, engine):
        given.append(engine)
        return FakeLLM(["Hel"])

    monkeypatch.setattr("octavo.cli.run.open_llm", remember)
    for flags, engine in [
        ([], {}),
        (["--prefix-cache", "--kv-cache"], {"prefix_cache": True, "kv_cache": True}),
        (["--no-prefix-cache", "--no-kv-cache"], {"prefix_cache": False, "kv_cache": False}),
        (["--kv-idle", "0", "--eviction", "cost"], {"kv_idle": 0.0, "eviction": "cost"}),
        (["--kv-idle", "inf", "--step-ms", "inf"], {"kv_idle": inf, "step_ms": inf}),
        (["--kv-memory", "2G", "--step-ms", "0.5"], {"kv_memory": "2G", "step_ms": 0.5}),
    ]:
        octavo("run", "m", "hi", "--chat-template", __file__, *flags)
        assert given.pop() == engine
    for flags, message in [
        (["--eviction", "fifo"], "--eviction 'fifo': expected one of lru, cost"),
        (["--step-ms", "0"], "--step-ms 0.0: expected a number above 0"),
        (["--kv-idle", "-1"], "--kv-idle -1.0: expected a number from 0"),
        (
            ["--prefix-cache", "--no-kv-cache"],
            "--prefix-cache needs the KV cache: leave it or --no-kv-cache out",
        ),
    ]:
        result = octavo("run", "m", "hi", *flags)
        assert (result.code, result.err) == (2, f"octavo: {message}\n")


def test_a_schedule_is_for_many_requests(octavo):
    for flag in ("--schedule", "--max-num-seqs"):
        assert flag in octavo("batch", "--help").out
        assert flag not in octavo("run", "--help").out


def test_without_a_prefix_cache_the_reason_says_so(octavo, tiny):
    for flag in ("--no-prefix-cache", "--no-kv-cache"):
        result = octavo("run", tiny, "hello", *GREEDY, flag, "--stats", "--json")
        assert result.json["cache"]["reason"] == "disabled"
        assert "0 of 24 prompt tokens reused; disabled: the prefix cache is off\n" in result.err
