"""`--trace-steps` tells what the records say, whatever the length of the text would suggest."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest

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


def stepping(pieces: list[str], *steps: list[StepRecord]) -> FakeLLM:
    """An LLM that has one more list of records at each piece."""
    llm = FakeLLM(pieces)
    llm.between = lambda index: llm.records.extend(steps[index])
    return llm


@pytest.mark.parametrize(
    ("pieces", "steps", "out"),
    [
        (  # the counts are the records' even where they contradict the text
            [" upon", " a"],
            [[record(7, 999, 5)], [record(8, 31, 0)]],
            ['   7       999       5  "Once upon"', '   8        31       0  "Once upon a"'],
        ),
        (  # a prompt in pieces is a line a piece, and only the last has new text
            [" upon", " a"],
            [[record(0, 512, 0), record(1, 88, 512)], [record(2, 1, 600)]],
            [
                '   0       512       0  "Once"',
                '   1        88     512  "Once upon"',
                '   2         1     600  "Once upon a"',
            ],
        ),
        (  # text that was held back until the end has no counts
            [" up", "on"],
            [[record(0, 3, 0)], []],
            ['   0         3       0  "Once up"', '                        "Once upon"'],
        ),
        # a text stays on its line
        (['\n"é"'], [[record(0, 3, 0)]], ['   0         3       0  "Once\\n\\"é\\""']),
    ],
)
def test_a_step_is_a_line(pieces: list[str], steps: list[list[StepRecord]], out: list[str]) -> None:
    assert traced(stepping(pieces, *steps)) == (out, [])


def test_a_bounded_history_that_drops_old_records_is_followed_by_their_numbers() -> None:
    def forget(index: int) -> None:
        llm.records[:] = [record(index + 10, index + 1, 0)]

    llm = FakeLLM(["a", "b", "c"], between=forget, records=[record(9, 9, 9)])
    assert [line.split()[:2] for line in traced(llm)[0]] == [["10", "1"], ["11", "2"], ["12", "3"]]
    llm = stepping([" upon"], [record(2, 4, 5)])
    llm.records.append(record(1, 2, 3))  # of an earlier request
    assert traced(llm)[0] == ['   2         4       5  "Once upon"']


def test_json_keeps_standard_output_for_itself() -> None:
    out, err = traced(stepping(["a"], [record(0, 3, 0)]), as_json=True)
    assert (out, len(err)) == ([], 2)
