"""The same requests at random over one kind of layer group at a time: each dtype of K and V, and
each way to attend.

The short run is a few hundred steps of each; `--octavo-long-fuzz` makes 10,000 that are never the
same, and `-s` prints what happened in them and how many rows were compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.exactness.programs import Grouped, Shape, windowed
from tests.exactness.random_models import FULL, WIDE, WINDOWS, grouped, latent, shapes
from tests.exactness.test_random_requests import run_engines

EVENTS = """
admit / step / rows compared / copy-on-write
block: allocate / block: cache / block: evict
"""
SLIDE = "rows behind a slide / block between let go"


@dataclass(frozen=True)
class Kind:
    kv: Mapping[str, Any] = field(default_factory=lambda: {"kv_dtype": "bf16"})
    shapes: st.SearchStrategy[Shape] = shapes
    events: str = EVENTS  # that have to happen, however few the steps
    examples: int = 2  # of each engine in the short run; the first has the fewest tokens


def _with(**of_groups: st.SearchStrategy[Any]) -> st.SearchStrategy[Grouped]:
    """Shapes of attention alone, some of their fields drawn so."""
    fields = st.fixed_dictionaries(of_groups)
    return st.builds(lambda shape, given: replace(shape, **given), grouped, fields)


def _of_groups(groups: st.SearchStrategy[Any], **others: Any) -> st.SearchStrategy[Grouped]:
    drawn = st.builds(lambda groups: {"groups": groups, "num_layers": len(groups)}, groups)
    return st.builds(lambda shape, given: replace(shape, **given, **others), grouped, drawn)


narrow_and_all = st.builds(lambda w: (FULL, windowed(w)), WINDOWS)
sliding = st.builds(
    lambda shape, lengths: replace(shape, sliding=lengths),
    _of_groups(st.sampled_from([(FULL,), (WIDE,), (FULL, WIDE)]), varied=False, slopes=""),
    st.sampled_from([(20, 3), (32, 16), (48, 3), (80, 32), (330, 260)]),
)
as_wide_as_deepseek = st.builds(lambda shape: replace(shape, latent=512, turned=64), latent)

KINDS = {
    "int8": Kind({"kv_dtype": "int8"}),
    "int4": Kind({"kv_dtype": "int4", "kv_sinks": 0}),
    "int4 behind sinks": Kind({"kv_dtype": "int4"}, events=EVENTS + "sinks: allocate"),
    "int8 and int4": Kind({"kv_dtype": "k=int8,v=int4"}),
    "int8 beside bf16": Kind({"kv_dtype": "full=int8,window=bf16"}, _of_groups(narrow_and_all)),
    "sliding context": Kind(shapes=sliding, events=EVENTS + SLIDE, examples=3),
    "sliding context, int8": Kind({"kv_dtype": "int8"}, sliding, EVENTS + SLIDE, examples=3),
    "latent": Kind(shapes=as_wide_as_deepseek, events=EVENTS + "V read from K"),
    "latent, int8": Kind({"kv_dtype": "int8"}, as_wide_as_deepseek),
    "slopes": Kind(shapes=_with(slopes=st.sampled_from(["plain", "rounded"]))),
    "sink logits": Kind(shapes=_with(sink_logits=st.just(True))),
}


@pytest.mark.parametrize("name", KINDS)
def test_no_request_notices_another_in(name: str, pytestconfig: pytest.Config) -> None:
    kind, long = KINDS[name], pytestconfig.getoption("--octavo-long-fuzz")
    run_engines(
        10_000 if long else 200, [kind.kv], kind.events, long,
        shapes=kind.shapes, examples=7 if long else kind.examples,
    )  # fmt: skip
