"""The page of a run: figures, tables and facts in one HTML file that needs no network.

Comes in: `Results`. Goes out: text. Bars are medians, whiskers the least and the most; a dashed
line is what the machine allowed in the same turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

import plotly.graph_objects as go

from benchmarks.peer.results import Outcome, Results
from benchmarks.peer.workloads import Workload
from octavo.errors import counted

_TITLES = {
    "prefill": "Prefill: one prompt, its tokens a second",
    "decode": "Decode: one stream, new tokens a second",
    "batch": "Batch: new tokens a second of all streams together, 128 before each",
    "chat": "Chat: requests of ShareGPT's lengths offered together, new tokens a second",
    "shared prefix": "Shared prefix: requests that begin alike, offered together, new tokens a "
    "second",
}
# Told apart without colour too, by the order of the bars.
_COLOURS = {
    "octavo": "#0b5fa5", "llama.cpp": "#c2703d", "ik_llama.cpp": "#e0a458", "openvino": "#7a6fb0",
    "vllm": "#5b8c5a", "transformers": "#9a9a9a",
}  # fmt: skip
_OTHER, _LIMIT = "#777777", "#222222"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 0.5rem; }
table { border-collapse: collapse; margin: 0.5rem 0 1rem; }
th, td { padding: 0.2rem 0.9rem 0.2rem 0; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
                       white-space: nowrap; }
tr.ours td { font-weight: 600; } td.why, .aside { color: #666; }
"""


def page(results: Results) -> str:
    groups = [list(works) for _, works in groupby(results.works, key=lambda work: work.group)]
    parts = [_facts(results)]
    for number, works in enumerate(groups):
        parts.append(f"<h2>{escape(_TITLES[works[0].group])}</h2>")
        parts.append(_plot(results, works, first=number == 0))
        parts.append(_table(results, works))
    parts.append(_engines(results))
    title = f"Engines on {results.machine['cpu']}: {results.model['file']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def figure(results: Results, works: Sequence[Workload]) -> go.Figure:
    """One group: a bar for each peer at each size, and a line where the machine's limit is."""
    plot = go.Figure()
    names = [work.size for work in works]
    for peer in results.peers:
        found = [results.of(work.name, peer) for work in works]
        if any(each is not None and each.samples for each in found):
            plot.add_trace(_bars(peer, names, found))
    limits = [results.limit(work.name) for work in works]
    for at, each in enumerate(limits):
        if each is not None:
            plot.add_shape(
                type="line", x0=at - 0.46, x1=at + 0.46, y0=each, y1=each,
                line={"color": _LIMIT, "width": 1.5, "dash": "dash"},
                name="the machine's limit in the same turns", legendgroup="limit",
                showlegend=at == next(i for i, other in enumerate(limits) if other is not None),
            )  # fmt: skip
    plot.update_layout(
        template="plotly_white", height=380, barmode="group", bargap=0.2,
        margin={"l": 60, "r": 10, "t": 10, "b": 40}, legend={"orientation": "h", "y": 1.12},
        yaxis={"title": "tokens a second", "range": [0, 1.05 * _highest(results, works)]},
        xaxis={"type": "category", "range": [-0.5, len(works) - 0.5]},
    )  # fmt: skip
    return plot


def _highest(results: Results, works: Sequence[Workload]) -> float:
    """Return what a figure has to reach: the limits, and all that was measured."""
    measured = [
        each.most
        for work in works
        for each in (results.of(work.name, peer) for peer in results.peers)
        if each is not None and each.samples
    ]
    return max([*measured, *(results.limit(work.name) or 0.0 for work in works)], default=1.0)


def _bars(peer: str, names: Sequence[str], found: Sequence[Outcome | None]) -> go.Bar:
    shown = [each if each is not None and each.samples else None for each in found]
    medians = [None if each is None else each.median for each in shown]
    return go.Bar(
        name=peer, x=list(names), y=medians, marker_color=_COLOURS.get(peer, _OTHER),
        text=["" if value is None else _number(value) for value in medians],
        textposition="auto", insidetextanchor="start", textangle=0,  # clear of the whiskers
        error_y={
            "type": "data", "symmetric": False, "thickness": 1.2, "width": 4,
            "array": [0 if each is None else each.most - each.median for each in shown],
            "arrayminus": [0 if each is None else each.median - each.least for each in shown],
        },
    )  # fmt: skip


def _plot(results: Results, works: Sequence[Workload], *, first: bool) -> str:
    config = {"displayModeBar": False, "responsive": True}
    plot = figure(results, works)
    html = plot.to_html(full_html=False, include_plotlyjs=first, config=config)
    assert isinstance(html, str)
    return html


def _facts(results: Results) -> str:
    machine, model = results.machine, results.model
    readings = [s for each in results.outcomes for s in each.samples]
    lines = [
        f"{machine['cpu']}, {machine['threads']} threads on {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['isa']}, {machine['system']}",
        f"{model['file']}, {model['bytes'] / 1e9:.2f} GB, {model['weights']}",
    ]
    if readings:
        read = sorted(each.read_gbps for each in readings)
        peak = sorted(each.peak_gops for each in readings)
        lines.append(
            f"The machine read {read[0]:.1f} to {read[-1]:.1f} GB/s and did {peak[0]:,.0f} to "
            f"{peak[-1]:,.0f} GOP/s of int8 dots in registers, before and after each repetition."
        )
    for each in results.runs:
        repeats = counted(each["repeats"], "repetition")
        lines.append(f"{each['began']}: {repeats}, {each['seconds']} s")
    read_this = (
        "Bars are medians of the repetitions, whiskers the least and the most; engines took turns. "
        "The dashed line is the speed at which reading weights, K and V, or the dots alone, would "
        "take all the time, with the weights as Octavo holds them; small ones may stay in a cache, "
        "which is read faster."
    )
    shown = "".join(f"<br>{escape(line)}" for line in lines)[4:]
    return f"<p>{shown}</p><p>{escape(read_this)}</p>"


def _table(results: Results, works: Sequence[Workload]) -> str:
    head = "".join(
        f'<th class="{kind}">{name}</th>'
        for name, kind in (
            ("", ""), ("engine", ""), ("tok/s", "number"), ("least to most", "number"),
            ("of the limit", "number"), ("octavo is", "number"),
        )
    )  # fmt: skip
    rows = [
        _row(results, work, peer, first=number == 0)
        for work in works
        for number, peer in enumerate(results.peers)
        if results.of(work.name, peer) is not None
    ]
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _row(results: Results, work: Workload, peer: str, *, first: bool) -> str:
    outcome, ours = results.of(work.name, peer), results.of(work.name, "octavo")
    assert outcome is not None
    cells = [f"<td>{escape(work.size) if first else ''}</td>", f"<td>{escape(peer)}</td>"]
    if outcome.samples:
        least, most = _number(outcome.least), _number(outcome.most)
        ratio = ""
        if peer != "octavo" and ours is not None and ours.samples:
            ratio = f"{ours.median / outcome.median:.2f}x"
        texts = (
            _number(outcome.median), f"{least} to {most} ({len(outcome.samples)})",
            f"{outcome.of_limit:.0%}", ratio,
        )  # fmt: skip
        cells += [f'<td class="number">{text}</td>' for text in texts]
    if outcome.why:
        cells.append(f'<td class="why" colspan="4">{escape(outcome.why)}</td>')
    kind = ' class="ours"' if peer == "octavo" else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _engines(results: Results) -> str:
    rows = [
        f"<tr><td>{escape(name)}</td><td>{escape(facts['version'] or 'unknown')}</td>"
        f"<td>{escape(facts['how'])}</td></tr>"
        for name, facts in results.peers.items()
    ]
    rows += [
        f'<tr><td>{escape(name)}</td><td class="why">not installed</td>'
        f'<td class="why">{escape(how)}</td></tr>'
        for name, how in results.missing.items()
    ]
    head = "<tr><th></th><th>version</th><th>how</th></tr>"
    return f"<h2>Engines</h2><table>{head}{''.join(rows)}</table>"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
