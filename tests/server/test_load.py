"""A server under a crowd: no answer is another one than alone, and nothing is left of any."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.server.crowd import Crowd, open_files
from tests.server.live import Live, until
from tests.serving.stories import assert_nothing_held


def test_a_crowd_leaves_nothing_behind(roomy_path: Path) -> None:
    with Live(roomy_path, max_body=256 << 10) as live:
        crowd = Crowd(live)
        crowd.run(24, 1)  # so that all threads are there
        files, threads = open_files(), threading.active_count()
        crowd.run(24, 6)
        assert crowd.wrong == []
        kinds = {"reads", "reads_slowly", "leaves", "stalls", "sends_what_is_none", "injected"}
        assert kinds <= crowd.done.keys()
        until(lambda: open_files() <= files and threading.active_count() <= threads)
        assert_nothing_held(live.llm)
        service = live.service
        assert service.body_bytes == service.tally.streams == service.tally.connections == 0
        assert live.post("/v1/cache/clear", {}).status == 200
        assert live.get("/v1/cache").json["counts"]["kv_blocks_kept"] == 0
