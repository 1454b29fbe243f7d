"""What shapes the draws of the offline API: seeds, and what the model's file recommends."""

from __future__ import annotations

import struct
from dataclasses import asdict
from pathlib import Path

import pytest

from octavo import LLM, Sampling, SamplingParams
from octavo.protocol.completions import parse_completion
from tests.cli.tiny_model import write_tiny_model
from tests.weights.gguf_bytes import F32, U32, entry, u32


def test_a_seed_of_zero_is_a_seed(llm: LLM) -> None:
    outputs = llm.generate([[1, 2]] * 2, SamplingParams(seed=0, max_tokens=20))
    assert [o.seed for o in outputs] == [0, 0]
    assert outputs[0].outputs == outputs[1].outputs


@pytest.fixture
def recommending(tmp_path: Path) -> LLM:
    """A model whose file says: take the likeliest token, and not twice."""
    entries = [
        entry("general.sampling.top_k", U32, u32(1)),
        entry("general.sampling.penalty_repeat", F32, struct.pack("<f", 1.75)),
    ]
    return LLM(write_tiny_model(tmp_path / "own.gguf", more=entries), threads=1)


def test_what_the_file_recommends_is_used_where_nothing_else_is_given(recommending: LLM) -> None:
    def tokens(**given: object) -> tuple[int, ...]:
        params = SamplingParams.parse({"max_tokens": 20, "seed": 1, "ignore_eos": True, **given})
        return recommending.generate([[1, 2]], params)[0].outputs[0].token_ids

    greedy = tokens(temperature=0, repetition_penalty=1.75)
    assert tokens() == tokens(top_k=1, repetition_penalty=1.75) == greedy
    assert tokens(temperature=0) == greedy  # the likeliest, with the penalty that is recommended
    # Each field alone: what is given wins, the other one stays.
    assert tokens(repetition_penalty=1) == tokens(temperature=0, repetition_penalty=1) != greedy
    assert tokens(top_k=0) == tokens(top_k=0, repetition_penalty=1.75) != greedy
    assert tokens(top_k=0, repetition_penalty=1) != tokens(top_k=0)


def test_an_output_tells_what_its_draws_were_shaped_by(recommending: LLM, llm: LLM) -> None:
    params = SamplingParams(max_tokens=1, temperature=0.5)
    want = Sampling(temperature=0.5, top_k=1, repetition_penalty=1.75)
    output = recommending.generate([[1, 2]], params)[0]
    assert output.sampling == want
    assert output.to_dict()["sampling"] == asdict(want)
    again = SamplingParams(max_tokens=1, seed=output.seed, **asdict(want))
    assert llm.generate([[1, 2]], again)[0].outputs == output.outputs
    beams = SamplingParams(max_tokens=1, beam_width=2)
    assert recommending.generate([[1, 2]], beams)[0].sampling is None
    assert llm.generate([[1, 2]])[0].sampling == Sampling()


def test_every_door_uses_what_the_file_recommends(recommending: LLM) -> None:
    want = recommending.info.sampling
    assert want == Sampling(top_k=1, repetition_penalty=1.75)
    *_, chunk = recommending.stream([1, 2])
    assert chunk.output is not None
    body = {"model": "m", "prompt": [1, 2], "max_tokens": 2, "temperature": None}
    request = parse_completion(body)
    answered = recommending.generate(list(request.prompts), request.params)[0]
    chatted = recommending.chat([{"role": "user", "content": "hi"}])
    assert chunk.output.sampling == answered.sampling == chatted.sampling == want
