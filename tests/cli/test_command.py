"""A function's signature as a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from click.exceptions import ClickException

from octavo.cli.command import Argument, Flag, command

Tea = Annotated[str, Argument("TEA", "Which.")]
Pot = Annotated[Path | None, Argument("POT", "Into what.")]


class Cups:
    """What the function was called with."""

    def __init__(self) -> None:
        self.got: dict[str, Any] = {}

    def pour(
        self,
        tea: Tea,
        pot: Pot = None,
        *,
        cups: Annotated[int, Flag(help="How many.")] = 2,
        kind: Annotated[Literal["black", "green"] | None, Flag("--kind", "-k", help="Of it.")],
        minutes: Annotated[list[float], Flag(help="Each.", shows_default=False)] = [1.5],  # noqa: B006
        milk: Annotated[bool | None, Flag("--milk/--no-milk", help="With it.")] = None,
        sugar: Annotated[bool, Flag("--sugar", help="With it.", metavar="S")] = False,
    ) -> None:
        """Pour it.

        All of it.
        """
        self.got = {k: v for k, v in locals().items() if k != "self"}


def poured(*arguments: str) -> dict[str, Any]:
    cups = Cups()
    verb = command("pour", cups.pour)
    with verb.make_context("pour", list(arguments)) as context:
        verb.invoke(context)
    return cups.got


def complaint(*arguments: str) -> str:
    with pytest.raises(ClickException) as error:
        poured(*arguments)
    return error.value.format_message()


def test_what_is_not_typed_is_the_default_and_of_a_flag_without_one_refused() -> None:
    assert poured("assam", "--kind", "black") == {
        "tea": "assam", "pot": None, "cups": 2, "kind": "black", "minutes": [1.5], "milk": None,
        "sugar": False,
    }  # fmt: skip
    assert "Missing option '--kind'" in complaint("assam")
    assert "Missing argument 'TEA'" in complaint("-k", "green")


def test_what_is_typed_is_read_as_its_type() -> None:
    assert poured(
        *("assam", "--cups", "3", "pot.txt", "-k", "green", "--no-milk", "--sugar"),
        *("--minutes", "2", "--minutes", "inf"),
    ) == {
        "tea": "assam", "pot": Path("pot.txt"), "cups": 3, "kind": "green",
        "minutes": [2.0, float("inf")], "milk": False, "sugar": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(["--cups", "2.5"], "'--cups': '2.5' is not a valid integer"),
     (["--minutes", "long"], "'--minutes': 'long' is not a valid float"),
     (["--kind", "red"], "'-k': 'red' is not one of 'black', 'green'"),
     (["--sugar=1"], "'--sugar' does not take a value"),
     (["pot.txt", "more"], "unexpected extra argument (more)")],
)  # fmt: skip
def test_what_is_none_is_refused_by_name(wrong: list[str], said: str) -> None:
    assert said in complaint("assam", "-k", "green", *wrong)


def test_help_is_the_docstring_and_a_line_for_each() -> None:
    verb = command("pour", Cups().pour)
    with verb.make_context("pour", [], resilient_parsing=True) as context:
        lines = [line.split() for line in verb.get_help(context).splitlines()]
    assert ["Pour", "it."] in lines
    assert ["All", "of", "it."] in lines
    assert ["Usage:", "pour", "[OPTIONS]", "TEA", "[POT]"] in lines
    assert ["[POT]", "Into", "what."] in lines
    assert ["--cups", "N", "How", "many.", "[default:", "2]"] in lines
    assert ["--minutes", "X", "Each."] in lines
    assert ["--milk", "/", "--no-milk", "With", "it."] in lines
