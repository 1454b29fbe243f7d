"""What a start does not wait for: modules that an answer from a local file has no use for."""

from __future__ import annotations

import json

import pytest

from tests.cli.process import run_python
from tests.cli.tiny_model import TINY

# Of each is said elsewhere who imports it, and when.
UNUSED = frozenset(
    {
        *("asyncio", "difflib", "email", "hmac", "http", "random", "secrets", "shutil", "socket"),
        *("ssl", "subprocess", "tempfile", "unittest"),
        *("httpx", "httpx2", "huggingface_hub", "jinja2", "llguidance", "orjson", "pydantic"),
        *("readline", "requests", "rich", "safetensors", "starlette", "typer", "uvicorn", "yaml"),
    }
)
OWN_UNUSED = frozenset(
    {
        *("octavo.protocol", "octavo.server", "octavo.weights.hf", "octavo.kv_cache.cost_aware"),
        *("octavo.engine.decoding.beams", "octavo.engine.decoding.beam_search"),
    }
)
OF_CHATS = {"jinja2", "random", "shutil", "tempfile"}  # Jinja, and what it imports

PROGRAM = """
import json, sys
from octavo.cli.app import run
assert run(sys.argv[1:]) == 0
print(json.dumps(list(sys.modules)))
"""


@pytest.mark.parametrize(("flags", "used"), [(["--raw"], set()), ([], OF_CHATS)])
def test_an_answer_imports_nothing_that_it_has_no_use_for(flags: list[str], used: set[str]) -> None:
    told = run_python(PROGRAM, "run", TINY, "hi", "--max-tokens", "1", "--quiet", *flags)
    assert (told.code, told.err) == (0, "")
    modules = set(json.loads(told.out.splitlines()[-1]))
    assert "octavo.serving.llm" in modules  # it was the start that is measured
    assert {each.partition(".")[0] for each in modules} & UNUSED == used
    assert modules & OWN_UNUSED == set()
