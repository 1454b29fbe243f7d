"""Exactness holds whatever runs beside: threads of these tests have every CPU."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def with_every_cpu(every_cpu: None) -> None:
    pass
