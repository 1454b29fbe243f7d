"""What is imported for good is out of the garbage collector's sight, and all else is in it."""

from __future__ import annotations

import gc

import pytest

from octavo.cli.staying import staying
from tests.cli.process import run_python


@pytest.mark.parametrize("raises", [False, True])
def test_what_is_made_in_there_is_frozen_and_garbage_is_collected_again(raises: bool) -> None:
    before = gc.get_freeze_count()
    try:
        with staying():
            assert not gc.isenabled()
            made = [[each] for each in range(100)]
            if raises:
                raise ImportError
    except ImportError:
        pass
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()


def test_a_start_waits_for_no_library_that_it_may_do_without() -> None:
    program = """
import sys, octavo.cli.app, octavo.cli.run, octavo.serving.llm
print({"rich", "jinja2", "llguidance", "asyncio", "safetensors"} & sys.modules.keys())
import octavo.cli.serve, octavo.server.serve, octavo.serving.async_engine
print({"rich", "jinja2", "llguidance", "prometheus_client", "opentelemetry"} & sys.modules.keys())
"""
    assert run_python(program).out == "set()\nset()\n"
