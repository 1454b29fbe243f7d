"""Tiny models at random, of one to three layer groups, and each alone in memory of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from octavo.config import EngineConfig
from octavo.kernels import native
from octavo.program.ops import KVSpec
from octavo.weights.ggml_type import GGMLType
from tests.exactness.alone import Alone
from tests.exactness.programs import Grouped, Latent, Shape, build, windowed
from tests.tiny import TINY, TinyModel, make_runner, random_model

EOS = 3
ALONE = native.ThreadPool(1)
WINDOWS = st.sampled_from([3, 16, 20, 32, 50, 100])
llamas = st.builds(
    lambda layers, heads, vocab, tied: replace(
        TINY, num_layers=layers, hidden_size=64, ffn_size=96, vocab_size=vocab, tied_head=tied,
        heads=heads[0], kv_heads=heads[1], head_dim=heads[2], rotary_dim=heads[2],
    ),
    layers=st.integers(1, 3),
    heads=st.sampled_from([(1, 1, 32), (2, 1, 16), (4, 2, 16), (4, 1, 32), (3, 3, 32)]),
    vocab=st.sampled_from([6, 19, 40]),
    tied=st.booleans(),
)  # fmt: skip
FULL, WIDE = KVSpec(1, 32, 32), KVSpec(3, 32, 64)
groups = st.one_of(
    st.builds(lambda w: (windowed(w),), WINDOWS),
    st.builds(lambda w: (FULL, windowed(w)), WINDOWS),
    st.builds(lambda w: (windowed(w), WIDE), WINDOWS),
    st.just((FULL, WIDE)),
    st.builds(lambda v, w: (windowed(v), windowed(w)), WINDOWS, WINDOWS),
    st.builds(lambda v, w: (FULL, windowed(v), windowed(w)), WINDOWS, WINDOWS),
    st.builds(lambda w: (WIDE, FULL, windowed(w)), WINDOWS),
)
grouped = st.builds(
    lambda groups, more, **others: Grouped(groups, len(groups) + more, **others),
    groups=groups,
    more=st.integers(0, 1),
    vocab_size=st.sampled_from([6, 19, 40]),
    queries=st.sampled_from([2, 2, 25]),
    softcap=st.sampled_from([0.0, 0.0, 1.0]),
    varied=st.booleans(),
    experts=st.sampled_from([0, 0, 3, 8]),
    sink_logits=st.booleans(),
    slopes=st.sampled_from(["", "", "plain", "rounded"]),
    sharing=st.sampled_from([0, 0, 1, 3]),
    from_file=st.booleans(),
    sliding=st.sampled_from([None, (32, 16), (48, 3), (80, 32), (96, 0), (330, 260)]),
)  # fmt: skip
latent = st.builds(
    Latent, heads=st.sampled_from([1, 3, 16]), num_layers=st.integers(1, 2),
    vocab_size=st.sampled_from([6, 19, 40]), narrow=st.sampled_from([0, 32]),
)  # fmt: skip
shapes = llamas | grouped | grouped | latent  # most of what is drawn is of the second


@lru_cache(16)
def model_of(shape: Shape, type: GGMLType) -> TinyModel:
    return random_model(build(shape), ALONE, type=type)


def kv_of(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return what options say of K and V."""
    return tuple((name, options[name]) for name in ("kv_dtype", "kv_sinks") if name in options)


@lru_cache(16)
def alone_of(
    shape: Shape, type: GGMLType, kv: tuple[tuple[str, Any], ...], block_size: int
) -> Alone:
    """Sinks are a block: with them bits depend on its size."""
    size = block_size if EngineConfig.parse(dict(kv)).kv_sink_tokens else 32
    runner = make_runner(
        model_of(shape, type), ALONE, num_blocks=14 * 32 // size, max_rows=14 * 32,
        block_size=size, **dict(kv),
    )  # fmt: skip
    return Alone(runner, frozenset({EOS}))
