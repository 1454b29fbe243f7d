"""docs/api.md is what the tables give, and the examples that it shows run against a server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.make_api import CLIENTS, PAGE, page
from octavo.protocol.tools.formats import FORMATS
from octavo.server.app import ROUTES
from octavo.server.described import DESCRIBED, TOOL_FORMATS
from octavo.server.exchange import Exchange, Receive
from octavo.server.intake import Intake
from tests.server.documented import accepts
from tests.server.live import Live

EXAMPLES = Path(__file__).parents[2] / "examples" / "clients"
SERVER = "http://127.0.0.1:8000"


def run(live: Live, name: str, folder: Path, patch: pytest.MonkeyPatch, *command: str) -> str:
    """What the example prints when it talks to this server and its model. The bodies that it sends
    are as the OpenAPI document has them."""
    text = (EXAMPLES / name).read_text()
    assert SERVER in text
    program = folder / name
    program.write_text(text.replace(SERVER, live.url).replace("smollm2", "tiny"))
    environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with patch.context() as listening:
        sent: list[tuple[str, bytes]] = []
        intake = Intake._body

        async def heard(self: Intake, exchange: Exchange, receive: Receive) -> bytes:
            body = await intake(self, exchange, receive)
            sent.append((exchange.path, body))
            return body

        listening.setattr(Intake, "_body", heard)
        done = subprocess.run(
            [*command, str(program)], capture_output=True, text=True, env=environ, timeout=120
        )
    assert (done.returncode, done.stderr) == (0, ""), name
    assert sent
    for path, body in sent:
        assert accepts(path, json.loads(body)), body
    return done.stdout


def test_the_page_is_what_the_tables_give() -> None:
    assert PAGE.read_text() == page(), "make docs/api.md"


def test_it_has_every_route_and_every_field() -> None:
    found = page()
    for method, path, _ in ROUTES:
        assert f"`{method} {path.replace(':path', '')}`" in found
    for (method, path), row in DESCRIBED.items():
        if row.table is not None:
            section = found.partition(f"\n## {method} {path}\n")[2].partition("\n## ")[0]
            for field in row.table:
                assert f"`{field}`" in section, (path, field)


def test_it_has_every_form_of_tool_calls() -> None:
    assert tuple(TOOL_FORMATS) == FORMATS


def test_every_example_is_shown() -> None:
    assert sorted(CLIENTS) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_the_paths_of_an_example_are_there(name: str) -> None:
    """Also of those whose client is not at hand: what follows the address begins a route."""
    text = (EXAMPLES / name).read_text()
    paths = re.findall(rf"{SERVER}([\w/]*)", text)
    assert paths
    for path in paths:
        assert any(route.startswith(path) for _, route, _ in ROUTES), path


def test_curl(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("curl"), "curl is needed to try its example"
    printed = run(live, "curl.sh", tmp_path, monkeypatch, "sh", "-e")
    assert printed.startswith('{"id":"chatcmpl-')
    assert printed.endswith("data: [DONE]\n\n")


def test_openai(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = run(live, "openai_client.py", tmp_path, monkeypatch, sys.executable).splitlines()[-1]
    assert last in ("{'is_blue': True}", "{'is_blue': False}")


def test_anthropic(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = run(live, "anthropic_client.py", tmp_path, monkeypatch, sys.executable).splitlines()[-1]
    assert re.fullmatch(r"\d+ tokens of the prompt were computed", last)
