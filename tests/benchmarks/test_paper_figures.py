"""The benchmarks of the papers' cache figures: lengths, beams and prompts small enough to count by
hand, and the public ones where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import data, paper_figures, residents, sharing, waste
from benchmarks.data import Lengths, Turn
from benchmarks.figure import Figure, table
from benchmarks.prompts import ByteEncoder, dialogue

# ---- waste


def test_waste_is_what_a_hand_counts_over_the_steps_of_each_request() -> None:
    # 3 tokens stored, then 4, then 5 in 4, 4 and 8 slots; and 6, then 7 in 8 slots each.
    lengths = [Lengths(3, 3), Lengths(6, 2)]
    together = waste.measure(lengths, 4)
    assert (together.slots, together.unfilled) == (16 + 16, 4 + 3)
    assert (together.steps, together.served, together.refused) == (3, 2, 0)
    assert waste.count(lengths, 4) == (32, 7)
    alone = waste.measure(lengths, 4, at_once=1)
    assert (alone.slots, alone.unfilled, alone.steps) == (32, 7, 5)


def test_a_reservation_is_one_block_and_what_exceeds_it_is_refused() -> None:
    found = waste.measure([Lengths(4096, 1), Lengths(8000, 193), Lengths(8000, 192)], 8192)
    assert (found.served, found.refused) == (2, 1)
    assert found.slots == 8192 * (1 + 192)
    assert found.unfilled == 4096 + sum(192 - i for i in range(192))


@settings(deadline=None)  # the first run loads the core
@given(st.lists(st.builds(Lengths, st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=9))
def test_requests_together_waste_what_they_waste_alone(lengths: list[Lengths]) -> None:
    found = waste.measure(lengths, 8, at_once=4)
    alone = [waste.measure([each], 8) for each in lengths]
    assert found.slots == sum(each.slots for each in alone)
    assert found.unfilled == sum(each.unfilled for each in alone)
    assert (found.slots, found.unfilled) == waste.count(lengths, 8)


# ---- requests at once


def test_sixteen_requests_of_32_blocks_fill_the_memory_of_two_reservations() -> None:
    figure = residents.figure([Lengths(1000, 24)] * 40, budget=2 * 8192, warm_up=0)
    assert (figure.counts["paged"], figure.counts["reserved"]) == (16, 2)
    assert (figure.ours, figure.met) == (8.0, True)
    assert figure.counts["paged_preemptions"] == 0


def test_what_is_not_five_times_as_many_is_said_not_to_be() -> None:
    figure = residents.figure([Lengths(2000, 24)] * 40, budget=2 * 8192, warm_up=0)
    assert (figure.ours, figure.met) == (4.0, False)
    assert "NOT MET" in table([figure])


# ---- blocks saved


def test_samples_share_the_whole_blocks_of_their_prompt() -> None:
    # 5 tokens in blocks of 4: one block shared; 6 and 7 stored take 2 blocks an answer.
    counted = sharing.sample_blocks([Lengths(5, 3)], 2, 4)
    assert (counted.unshared, counted.held) == (8, 6)
    found, _ = sharing.measure(
        [Lengths(5, 3)], {"n": 2, "temperature": 1.0, "seed": 1}, block_size=4
    )
    assert found == counted


@pytest.mark.parametrize("width", [2, 4, 6])
def test_the_pool_saves_what_the_formula_says(width: int) -> None:
    lengths = [Lengths(1, 9), Lengths(4, 2), Lengths(8, 5), Lengths(15, 20), Lengths(33, 7)]
    params: dict[str, object] = {"n": width, "temperature": 1.0, "seed": 1}
    found, _ = sharing.measure(lengths, params, block_size=4)
    assert found == sharing.sample_blocks(lengths, width, 4)
    assert 0 < found.saved < 1


def test_beams_share_what_a_common_parent_wrote() -> None:
    # 3 tokens of prompt in blocks of 4: the first token of an answer fills the block.
    assert sharing.count_beam_blocks(3, [(0, 0)], 4) == 2
    assert sharing.count_beam_blocks(3, [(0, 0), (0, 1)], 4) == 4
    assert sharing.count_beam_blocks(3, [(0, 0), (1, 1)], 4) == 3  # one full block, a copy each
    later = [
        (0, 0),
        (1, 1),
        (0, 1),
        (0, 1),
        (0, 1),
    ]  # the second block is full, and each beam's own
    assert sharing.count_beam_blocks(3, later, 4) == 3
    assert sharing.count_beam_blocks(3, [*later, (1, 1)], 4) == 4  # now they share it
    assert sharing.count_beam_blocks(8, [(0, 0)], 4) == 2 + 2  # whole blocks of the prompt: once


@pytest.mark.parametrize("width", [2, 4, 6])
def test_the_pool_holds_what_the_parent_pointers_say(width: int) -> None:
    lengths = [Lengths(1, 9), Lengths(3, 2), Lengths(8, 30), Lengths(15, 20)]
    found, requests = sharing.measure(lengths, {"beam_width": width}, block_size=4)
    assert found == sharing.beam_blocks(requests, 4)
    assert [len(r.branch_parents) for r in requests] == [8, 1, 29, 19]
    parents = {parent for r in requests for step in r.branch_parents for parent in step}
    assert parents == set(range(width))  # beams did fork and die
    assert found.held < found.unshared


# ---- the runner


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder as the benchmarks read it, with two questions of each kind."""
    bbh = tmp_path / "questions" / "bbh"
    bbh.mkdir(parents=True)
    (tmp_path / "chat").mkdir()
    for task in data.BBH_TASKS:
        examples = [{"input": f"{task} {i}?", "target": "yes"} for i in range(2)]
        (bbh / f"{task}.json").write_text(json.dumps({"examples": examples}))
        (bbh / f"{task}.cot.txt").write_text(f"canary\n-----\n{task}.\n\nQ: why?\nA: so.")
    questions: list[dict[str, object]] = [
        {"question_id": i, "turns": [f"one {i}", f"two {i}"]} for i in (1, 2)
    ]
    answers = [{"question_id": 2, "choices": [{"turns": ["three", "four"]}]}]
    said = [("USER", "Hi"), ("SYSTEM", "Hello"), ("USER", "Bye")]
    turns = [{"speaker": who, "utterance": what} for who, what in said]
    write_lines(tmp_path / "questions" / "mt_bench.part1.jsonl", questions)
    write_lines(tmp_path / "questions" / "mt_bench_reference_answers.part1.jsonl", answers)
    write_lines(tmp_path / "chat" / "sgd_dialogues.part1.jsonl", [{"turns": turns}] * 2)
    return tmp_path


def write_lines(path: Path, objects: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))


def test_texts_are_read_as_prompts_and_turns(texts: Path) -> None:
    first = data.bbh_prompts(texts)[0]
    question = "Q: date_understanding 0?\nA: Let's think step by step."
    assert first == f"date_understanding.\n\nQ: why?\nA: so.\n\n{question}"
    assert data.mt_bench(texts) == [
        [Turn("one 1", ""), Turn("two 1", "")],
        [Turn("one 2", "three"), Turn("two 2", "four")],
    ]
    assert data.sgd_dialogues(texts) == [[Turn("Hi", "Hello"), Turn("Bye", "")]] * 2


def test_lengths_are_scaled_to_other_means() -> None:
    lengths = [Lengths(100, 10), Lengths(300, 30)]
    assert data.scaled(lengths, prompt=20, answer=4) == [Lengths(10, 2), Lengths(30, 6)]


def test_the_runner_prints_every_figure_as_json(
    texts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTAVO_HOME", str(texts))  # where no model is
    assert paper_figures.main(["--data", str(texts), "--only", "hits", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["hits"]
    assert [f["name"] for f in figures] == [
        "hit rate, BBH 3-shot, 10 questions, bytes",
        "hit rate, the same offered all at once",
        "hit rate, MT-bench turn 2, 1 answered, bytes",
        "hit rate, MT-bench turn 2, 1 with an empty answer, bytes",
        "hit rate, SGD, 4 turns, bytes",
    ]
    assert all(f["met"] for f in figures)
    # The second of the dialogues is the first again: all but the last bytes of its prompts.
    prompts = [each.prompt for each in dialogue(ByteEncoder(), data.sgd_dialogues(texts)[0])]
    again = sum(len(prompt) - 1 for prompt in prompts)
    assert figures[-1]["counts"]["found_tokens"] == len(prompts[0]) + len("Hello") + again


def test_a_goal_that_is_missed_is_the_exit_code(
    texts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = Figure("waste", 99.0, "%", goal="<= 1 %", met=False)
    monkeypatch.setattr(paper_figures, "GROUPS", {"waste": lambda folder: [missed]})
    assert paper_figures.main(["--data", str(texts)]) == 1
    assert "NOT MET" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "waste,wast"], "no 'wast': expected some of waste,residents"),
        (["--data", "/nowhere"], "there is no folder /nowhere"),
        ([], "Give --data DIR or set OCTAVO_DATA"),
    ],
)
def test_the_runner_refuses_what_it_does_not_know(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OCTAVO_DATA", raising=False)
    with pytest.raises(SystemExit) as error:
        paper_figures.main(arguments)
    assert error.value.code == 2
    assert says in capsys.readouterr().err


# ---- the public lengths and texts


@pytest.mark.parametrize(("trace", "every"), [("conv", 60), ("code", 20)])
@pytest.mark.parametrize("block_size", [16, 32, 8192])
def test_waste_on_real_lengths_is_near_the_reference_and_under_the_goal(
    trace: str, every: int, block_size: int, public_data: Path
) -> None:
    lengths = data.azure_lengths(public_data, trace)[::every]
    figure = waste.figure(trace, lengths, block_size)
    assert figure.met
    # A sample of the requests whose average the reference is.
    assert figure.ours == pytest.approx(waste.REFERENCE[trace][block_size], rel=0.2)


def test_five_times_as_many_real_requests_are_resident(public_data: Path) -> None:
    lengths = data.azure_lengths(public_data, "conv")[::40]
    figure = residents.figure(lengths, budget=4 * 8192, warm_up=100)
    assert figure.met
    assert figure.counts["reserved"] == 4
