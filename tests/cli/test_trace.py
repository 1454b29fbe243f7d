"""`--trace-steps` tells what the records say, whatever the length of the text would suggest."""

from __future__ import annotations

import io

from octavo.cli.screen import Screen
from octavo.cli.trace import StepTrace
from tests.cli.fake_llm import FakeLLM, record


def traced(llm: FakeLLM, capsys) -> list[str]:
    trace = StepTrace(llm, Screen(as_json=False), start="Once")
    for chunk in llm.stream([1, 2, 3], None):
        trace.show(chunk)
    return capsys.readouterr().out.splitlines()[1:]


def test_the_counts_are_the_records_even_where_they_contradict_the_text(capsys):
    steps = [record(7, 999, 5), record(8, 31, 0)]
    llm = FakeLLM([" upon", " a"], between=lambda i: llm.records.append(steps[i]))
    assert traced(llm, capsys) == [
        '   7       999       5  "Once upon"',
        '   8        31       0  "Once upon a"',
    ]


def test_steps_of_earlier_requests_are_not_told_again(capsys):
    llm = FakeLLM([" upon"], records=[record(1, 2, 3)])
    llm.between = lambda i: llm.records.append(record(2, 4, 5))
    assert traced(llm, capsys) == ['   2         4       5  "Once upon"']


def test_a_prompt_in_pieces_is_a_line_a_piece_and_only_the_last_has_new_text(capsys):
    llm = FakeLLM([" upon", " a"])
    steps = [[record(0, 512, 0), record(1, 88, 512)], [record(2, 1, 600)]]
    llm.between = lambda i: llm.records.extend(steps[i])
    assert traced(llm, capsys) == [
        '   0       512       0  "Once"',
        '   1        88     512  "Once upon"',
        '   2         1     600  "Once upon a"',
    ]


def test_text_that_was_held_back_until_the_end_has_no_counts(capsys):
    llm = FakeLLM(
        [" up", "on"], between=lambda i: None if i else llm.records.append(record(0, 3, 0))
    )
    assert traced(llm, capsys) == [
        '   0         3       0  "Once up"',
        '                        "Once upon"',
    ]


def test_a_text_stays_on_its_line(capsys):
    llm = FakeLLM(['\n"é"'], between=lambda i: llm.records.append(record(0, 3, 0)))
    assert traced(llm, capsys) == ['   0         3       0  "Once\\n\\"é\\""']


def test_a_bounded_history_that_drops_old_records_is_followed_by_their_numbers(capsys):
    def forget(index: int) -> None:
        llm.records[:] = [record(index + 10, index + 1, 0)]

    llm = FakeLLM(["a", "b", "c"], between=forget, records=[record(9, 9, 9)])
    assert [line.split()[:2] for line in traced(llm, capsys)] == [
        ["10", "1"],
        ["11", "2"],
        ["12", "3"],
    ]


def test_json_keeps_standard_output_for_itself(capsys, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    llm = FakeLLM(["a"], between=lambda i: llm.records.append(record(0, 3, 0)))
    trace = StepTrace(llm, Screen(as_json=True), start="")
    for chunk in llm.stream([1], None):
        trace.show(chunk)
    assert capsys.readouterr().out == ""
    assert out.getvalue().count("\n") == 2
