"""What is no load is refused by the name of the choice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from octavo.bench.server_load.config import LoadConfig
from octavo.errors import UsageError

HERE = str(Path(__file__))


@pytest.mark.parametrize("text", ["inf", "Inf", "infinity"])
def test_a_rate_may_be_infinite(text: str) -> None:
    given: Any = text
    assert LoadConfig(rate=given).rate == math.inf


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"rate": "0"}, "rate='0': expected requests a second, or inf for all at once"),
        ({"rate": "-1"}, "rate='-1': expected requests"),
        ({"rate": "nan"}, "rate='nan': expected requests"),
        ({"rate": "fast"}, "rate='fast': expected requests"),
        ({"requests": 0}, "requests=0: expected a whole number from 1"),
        ({"concurrency": 0}, "concurrency=0: expected a whole number from 1"),
        ({"shared": -1}, "shared=-1: expected a whole number from 0"),
        ({"own": 0}, "own=0: expected a whole number from 1"),
        ({"tokens": 0}, "tokens=0: expected a whole number from 1"),
        ({"timeout": 0.0}, "timeout=0.0: expected a number above 0"),
        ({"endpoint": "messages"}, "endpoint='messages'"),
        ({"dataset": "/no/such"}, "dataset='/no/such': no such file"),
        ({"dataset": HERE, "own": 3}, "own=3: prompts of --dataset are as long as they are"),
        ({"tokens": 3, "max_tokens": 4}, "max_tokens=4: answers of --tokens do not differ"),
    ],
)
def test_what_is_no_load_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        LoadConfig(**given)
    assert str(caught.value).startswith(complaint)
