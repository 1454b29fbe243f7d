"""How `run` and `chat` draw where no flag says so, and that they tell."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from octavo.sampling_params import Sampling
from octavo.weights.library import LIBRARY
from tests.cli.fake_llm import FakeLLM
from tests.cli.result import Octavo
from tests.cli.tiny_model import TINY, write_tiny_model
from tests.weights.gguf_bytes import U32, entry, u32

FALLBACK = Sampling(temperature=0.7, top_p=0.9)


def drawn(octavo: Octavo, model: str, *flags: str) -> Any:
    return octavo("run", model, "hi", "--max-tokens", "2", "--json", *flags).json["sampling"]


def test_a_model_whose_makers_say_nothing_gets_a_mild_default(octavo: Octavo) -> None:
    assert drawn(octavo, TINY) == asdict(FALLBACK)
    flags = ["--temperature", "1", "--top-k", "5"]  # each field alone
    assert drawn(octavo, TINY, *flags) == asdict(Sampling(1.0, 5, 0.9))
    assert drawn(octavo, TINY, "--beam-width", "2") is None


def test_what_a_file_recommends_is_taken_whole(octavo: Octavo, tmp_path: Path) -> None:
    own = entry("general.sampling.top_k", U32, u32(7))
    path = str(write_tiny_model(tmp_path / "own.gguf", more=[own]))
    assert drawn(octavo, path) == asdict(Sampling(temperature=1.0, top_k=7))
    assert drawn(octavo, path, "--top-p", "0.5") == asdict(Sampling(1.0, 7, 0.5))


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
def test_help_says_the_defaults(octavo: Octavo, verb: str) -> None:
    said = " ".join(octavo(verb, "--help").out.split())
    assert "as the model's makers recommend, else with temperature 0.7 and top-p 0.9" in said
    assert "default: the makers', else 0.7." in said
    assert "default: the makers', else 0.9." in said
