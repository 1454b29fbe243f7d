"""`--trace-steps` tells what the records say, whatever the length of the text would suggest."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from octavo.cli.screen import Screen
from octavo.cli.trace import StepTrace
from octavo.records import StepRecord
from octavo.sampling_params import SamplingParams
from tests.cli.fake_llm import FakeLLM, record


def traced(llm: FakeLLM, as_json: bool = False) -> tuple[list[str], list[str]]:
    """The lines of an answer to "Once", without the one above them, and those of standard error."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        trace = StepTrace(llm, Screen(as_json), start="Once")  # type: ignore[arg-type]
        for chunk in llm.stream([1, 2, 3], SamplingParams()):
            trace.show(chunk)
    return out.getvalue().splitlines()[1:], err.getvalue().splitlines()


def stepping(pieces: list[str], *steps: list[StepRecord], before: int | None = None) -> FakeLLM:
    """An LLM that has one more list of records at each piece; step `before` it began with."""
    llm = FakeLLM(pieces, records=[] if before is None else [record(before, 2, 3)])
    llm.between = lambda index: llm.records.extend(steps[index])
    return llm


def test_the_counts_are_the_records_even_where_they_contradict_the_text() -> None:
    llm = stepping([" upon", " a"], [record(7, 999, 5)], [record(8, 31, 0)])
    assert traced(llm)[0] == [
        '   7       999       5  "Once upon"',
        '   8        31       0  "Once upon a"',
    ]


def test_steps_of_earlier_requests_are_not_told_again() -> None:
    llm = stepping([" upon"], [record(2, 4, 5)], before=1)
    assert traced(llm)[0] == ['   2         4       5  "Once upon"']


def test_a_prompt_in_pieces_is_a_line_a_piece_and_only_the_last_has_new_text() -> None:
    pieces = [record(0, 512, 0), record(1, 88, 512)]
    assert traced(stepping([" upon", " a"], pieces, [record(2, 1, 600)]))[0] == [
        '   0       512       0  "Once"',
        '   1        88     512  "Once upon"',
        '   2         1     600  "Once upon a"',
    ]


def test_text_that_was_held_back_until_the_end_has_no_counts() -> None:
    assert traced(stepping([" up", "on"], [record(0, 3, 0)], []))[0] == [
        '   0         3       0  "Once up"',
        '                        "Once upon"',
    ]


def test_a_text_stays_on_its_line() -> None:
    llm = stepping(['\n"é"'], [record(0, 3, 0)])
    assert traced(llm)[0] == ['   0         3       0  "Once\\n\\"é\\""']


def test_a_bounded_history_that_drops_old_records_is_followed_by_their_numbers() -> None:
    def forget(index: int) -> None:
        llm.records[:] = [record(index + 10, index + 1, 0)]

    llm = FakeLLM(["a", "b", "c"], between=forget, records=[record(9, 9, 9)])
    assert [line.split()[:2] for line in traced(llm)[0]] == [["10", "1"], ["11", "2"], ["12", "3"]]


def test_json_keeps_standard_output_for_itself() -> None:
    out, err = traced(stepping(["a"], [record(0, 3, 0)]), as_json=True)
    assert (out, len(err)) == ([], 2)
