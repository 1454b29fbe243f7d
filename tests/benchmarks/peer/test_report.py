"""The page: what was measured stands in it, and it asks no network."""

from __future__ import annotations

import re
from dataclasses import replace

from benchmarks.peer.report import figure, page
from benchmarks.peer.results import Outcome
from tests.benchmarks.peer.fakes import BATCH, DECODE, results, sampled

UNABLE = Outcome(BATCH.name, "vllm", (), "not supported by vllm: <no> batches")
RESULTS = replace(
    results(
        sampled(DECODE, "octavo", 60, 80, 70), sampled(DECODE, "vllm", 35, 35, 34),
        sampled(BATCH, "octavo", 200, limit=400.0), UNABLE,
        works=[DECODE, BATCH], peers=["octavo", "vllm"],
    ),
    missing={"openvino": "pip install openvino-genai"},
)  # fmt: skip


def text(html: str) -> str:
    """What a reader sees of the page besides its figures."""
    shown = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", shown).split())


def test_a_figure_has_medians_whiskers_and_the_limit() -> None:
    plot = figure(RESULTS, [DECODE])
    ours, theirs = plot.data
    assert (ours.name, list(ours.x), list(ours.y)) == ("octavo", ["after 8"], [70])
    assert (ours.error_y.array[0], ours.error_y.arrayminus[0]) == (10, 10)
    assert (theirs.name, list(theirs.y)) == ("vllm", [35])
    assert list(plot.layout.yaxis.range) == [0, 105]  # the limit is below the edge
    (line,) = plot.layout.shapes
    assert (line.y0, line.y1, line.showlegend) == (100, 100, True)


def test_who_has_no_figure_has_no_bar_and_a_reason() -> None:
    assert [bar.name for bar in figure(RESULTS, [BATCH]).data] == ["octavo"]
    shown = text(page(RESULTS))
    assert "vllm not supported by vllm: &lt;no&gt; batches" in shown
    assert "openvino not installed pip install openvino-genai" in shown


def test_the_table_says_how_ours_compares() -> None:
    shown = text(page(RESULTS))
    assert "after 8 octavo 70 60 to 80 (3) 70% vllm 35 34 to 35 (3) 35% 2.00x" in shown
    assert "3 streams octavo 200 200 to 200 (1) 50%" in shown
    assert "A CPU, 2 threads on 2 cores, 25 GB, avx2, Linux" in shown
    assert "3 repetitions, 9 s" in shown


def test_the_page_opens_offline() -> None:
    html = page(RESULTS)
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)=", html)
    assert html.count("plotly.js v") == 1  # all of it, once
    assert html.count('class="plotly-graph-div"') == 2


def test_a_run_of_nothing_is_a_page_too() -> None:
    assert "Engines" in text(page(results(works=[], peers=[])))
