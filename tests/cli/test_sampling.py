"""How `run` and `chat` draw: with the flags and without them, and that they tell."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from octavo.cli.screen import printable
from octavo.sampling_params import Sampling, SamplingParams
from octavo.weights.library import LIBRARY
from tests.cli.fake_llm import FakeLLM
from tests.cli.result import GREEDY, Octavo, refused
from tests.cli.tiny_model import TINY, spm_entries, write_tiny_model
from tests.weights.gguf_bytes import U32, entry, u32

FALLBACK = Sampling(temperature=0.7, top_p=0.9)


def drawn(octavo: Octavo, model: str, *flags: str) -> Any:
    return octavo("run", model, "hi", "--max-tokens", "2", "--json", *flags).json["sampling"]


def test_a_mild_default_is_for_files_that_say_nothing(octavo: Octavo, tmp_path: Path) -> None:
    assert drawn(octavo, TINY) == asdict(FALLBACK)
    flags = ["--temperature", "1", "--top-k", "5"]  # each field alone
    assert drawn(octavo, TINY, *flags) == asdict(Sampling(1.0, 5, 0.9))
    assert drawn(octavo, TINY, "--beam-width", "2") is None
    # What a file recommends is taken whole.
    own = entry("general.sampling.top_k", U32, u32(7))
    path = str(write_tiny_model(tmp_path / "own.gguf", more=[own]))
    assert drawn(octavo, path) == asdict(Sampling(temperature=1.0, top_k=7))
    assert drawn(octavo, path, "--top-p", "0.5") == asdict(Sampling(1.0, 7, 0.5))


def sources(octavo: Octavo, model: str, *flags: str) -> set[tuple[str, str]]:
    """Who said what, but for the values that nobody said."""
    found = octavo("run", model, "hi", "--max-tokens", "2", "--json", *flags).json
    assert set(found["sampling_from"]) == set(found["sampling"])
    return {(name, who) for name, who in found["sampling_from"].items() if who != "default"}


def test_json_tells_who_said_each_value(
    octavo: Octavo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sources(octavo, TINY) == set()
    assert sources(octavo, TINY, "--temperature", "0.7") == {("temperature", "flag")}
    own = entry("general.sampling.top_k", U32, u32(7))
    path = str(write_tiny_model(tmp_path / "own.gguf", more=[own]))
    assert sources(octavo, path, "--seed", "3") == {("top_k", "model")}
    assert sources(octavo, path, "--top-k", "7") == {("top_k", "flag")}
    beams = octavo("run", path, "hi", "--max-tokens", "2", "--json", "--beam-width", "2").json
    assert beams["sampling_from"] == {}
    monkeypatch.setattr("octavo.cli.chat.open_llm", lambda model, engine: FakeLLM(["x"]))
    chat = octavo("chat", "smollm2", "--chat-template", __file__, "--top-k", "9", "--json")
    said = chat.json["sampling_from"]
    assert (said["temperature"], said["top_p"], said["top_k"]) == ("library", "library", "flag")


@pytest.mark.parametrize("verb", ["run", "chat"])
def test_a_library_model_is_drawn_as_its_makers_say(
    octavo: Octavo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
) -> None:
    llm = FakeLLM(["x"])
    monkeypatch.setattr(f"octavo.cli.{verb}.open_llm", lambda model, engine: llm)
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[-1].content }}")
    flags = ["--chat-template", str(template), *(["hi"] if verb == "run" else [])]
    for model in ("smollm2", "m"):
        assert octavo(verb, model, *flags, stdin="hi\n").code == 0
    assert [params.sampling() for params, _ in llm.given] == [LIBRARY["smollm2"].sampling, FALLBACK]
    assert LIBRARY["smollm2"].sampling == Sampling(temperature=0.2, top_p=0.9)


def test_stats_tell_how_tokens_are_drawn(octavo: Octavo) -> None:
    said = octavo("run", TINY, "hi", "--max-tokens", "2", "--stats").err
    assert "\nsampling: temperature 0.7, top-p 0.9\n" in said
    flags = ["--top-p", "1", "--temperature", "0", "--repetition-penalty", "1.1", "--top-k", "3"]
    said = octavo("chat", TINY, "--max-tokens", "2", *flags, stdin="/stats\n").err
    assert "sampling: temperature 0, repetition-penalty 1.1\n" in said  # no cut matters
    said = octavo("run", TINY, "hi", "--max-tokens", "2", "--beam-width", "2", "--stats").err
    assert "\nsampling: none, beams are searched\n" in said


@pytest.mark.parametrize("verb", ["run", "chat"])
def test_help_says_the_defaults_and_every_parameter_of_run(octavo: Octavo, verb: str) -> None:
    said = " ".join(octavo(verb, "--help").out.split())
    assert "as the model's makers recommend, else with temperature 0.7 and top-p 0.9" in said
    assert "default: the makers', else 0.7." in said
    assert "default: the makers', else 0.9." in said
    for name in SamplingParams.__dataclass_fields__.keys() - {"logit_bias"}:  # ids are for programs
        assert verb == "chat" or f"--{name.replace('_', '-')} " in said


def test_a_seed_repeats_what_is_drawn_and_a_temperature_of_zero_draws_none(octavo: Octavo) -> None:
    one = octavo("run", TINY, "hello", *GREEDY, "--json", "--seed", "1").json
    two = octavo("run", TINY, "hello", *GREEDY, "--json", "--seed", "2").json
    assert one["outputs"] == two["outputs"]
    assert (one["seed"], two["seed"]) == (1, 2)
    first = octavo("run", TINY, "hello", "--max-tokens", "12", "--json").json
    again = ["--max-tokens", "12", "--json", "--seed", str(first["seed"])]
    assert octavo("run", TINY, "hello", *again).json["outputs"] == first["outputs"]


def test_stop_strings_may_be_given_more_than_once(octavo: Octavo) -> None:
    text = octavo("run", TINY, "hello", *GREEDY, "--json").json["outputs"][0]["text"]
    assert text[1] == "\x11"
    flags = ["--stop", "never", "--stop", text[1], "--json"]
    found = octavo("run", TINY, "hello", *GREEDY, *flags).json["outputs"][0]
    assert (found["text"], found["finish_reason"]) == (text[0], "stop")


def test_control_tokens_in_an_answer_are_told_and_a_stop_string_may_be_one(octavo: Octavo) -> None:
    flags = ["--seed", "5", "--temperature", "1", "--top-p", "1", "--max-tokens", "100"]
    drawn = octavo("run", TINY, "hello", *flags, "--ignore-eos", "--json")
    answer = drawn.json["outputs"][0]
    inside = [(at, i) for at, i in enumerate(answer["token_ids"]) if i >= 256]
    assert inside == [(38, 256), (45, 257), (46, 256), (73, 256)]
    assert "[drawn, not shown: <|im_start|> (3), <|im_end|>]\n" in drawn.err
    stop = ["--ignore-eos", "--stop", "<|im_start|>"]
    found = octavo("run", TINY, "hello", *flags, *stop, "--json")
    stopped = found.json["outputs"][0]
    assert stopped["token_ids"] == answer["token_ids"][:39]
    assert stopped["finish_reason"] == "stop"
    assert answer["text"].startswith(stopped["text"].removesuffix("\ufffd"))
    assert "not shown" not in found.err  # it was asked for
    ended = octavo("run", TINY, "hello", *flags)
    assert "[drawn, not shown: <|im_start|>]\n" in ended.err  # not what ended it


def test_escapes_of_a_stop_string_are_read_and_no_others(octavo: Octavo) -> None:
    llm = FakeLLM(["Hel"])
    stops = {r"\n": "\n", r"a\r\n\tb": "a\r\n\tb", r"\\n": r"\n", r"\\\\": r"\\", "\n": "\n"}
    flags = [word for stop in stops for word in ("--stop", stop)]
    octavo("run", llm, "hi", "--chat-template", __file__, *flags)
    assert [params.stop for params, _ in llm.given] == [tuple(stops.values())]
    for stop, escape in ((r"\d+", r"\d"), ("a\\", "\\"), (r"\x0a", r"\x")):
        known = r"there are \n, \t, \r, and \\ for a backslash"
        complaint = f"--stop {stop}: {escape} is no escape: {known}"
        assert octavo("run", "m", "hi", "--stop", stop) == refused(complaint)


def test_several_answers_are_printed_one_after_another_each_under_a_line(octavo: Octavo) -> None:
    flags = ["--max-tokens", "8", "--seed", "3", "--n", "3"]
    found = octavo("run", TINY, "hello", *flags, "--json").json
    result = octavo("run", TINY, "hello", *flags)
    texts = [answer["text"] for answer in found["outputs"]]
    assert len(set(texts)) == 3
    lines = [f"[{i} of 3 · length]\n{printable(text)}\n" for i, text in enumerate(texts, 1)]
    assert result.out == "".join(lines)
    assert "[24 prompt tokens, 0 cached, " in result.err
    assert " · 24 new, " in result.err


def test_beams_are_answers_best_first_under_their_log_probability(octavo: Octavo) -> None:
    flags = ["--max-tokens", "4", "--beam-width", "3", "--length-penalty", "0.5"]
    best = octavo("run", TINY, "hello", *flags, "--early-stopping")
    assert best.out.count("\n") == 1  # one answer needs no line above it
    two = octavo("run", TINY, "hello", *flags, "--n", "2", "--json").json["outputs"]
    assert two[0]["cumulative_logprob"] > two[1]["cumulative_logprob"]
    shown = octavo("run", TINY, "hello", *flags, "--n", "2").out
    likely = [f"{answer['cumulative_logprob']:.3g}" for answer in two]
    assert shown == "".join(
        f"[{i} of 2 · length · log-probability {p}]\n{answer['text']}\n"
        for i, (answer, p) in enumerate(zip(two, likely, strict=True), 1)
    )
    for flag in ("--n", "--beam-width"):  # and their steps cannot be traced
        result = octavo("run", TINY, "hello", flag, "2", "--trace-steps")
        assert (result.code, result.out) == (2, "")
        assert "leave out --n and --beam-width" in result.err


def test_log_probabilities_are_for_json_and_the_prompts_need_every_row(octavo: Octavo) -> None:
    found = octavo("run", TINY, "hello", *GREEDY, "--prompt-logprobs", "1", "--json").json
    assert len(found["prompt_logprobs"]) == found["usage"]["prompt_tokens"] == 24
    assert found["prompt_logprobs"][0] is None
    assert found["cache"]["reason"] == "needs-all-rows"
    run, chat = ("run", TINY, "hi"), ("chat", TINY)
    for words in ([*run, "--logprobs"], [*run, "--prompt-logprobs"], [*chat, "--logprobs"]):
        complaint = f"{words[-1]} is shown with --json only: add it"
        assert octavo(*words, "2") == refused(complaint)


def test_an_answer_in_a_turn_has_no_blank_of_spm_in_front(octavo: Octavo, tmp_path: Path) -> None:
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
