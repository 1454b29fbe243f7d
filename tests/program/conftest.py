"""Programs are run by pools of several threads, which have every CPU here."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def with_every_cpu(every_cpu: None) -> None:
    pass
