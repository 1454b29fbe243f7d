"""What a request that has ended gave, held against what it gives alone, up to where it was ended.

`early`: the reasons for which it may have ended before its time.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from octavo.engine.decoding.pooled import embedding
from octavo.engine.nouns import Branch, Request
from octavo.request import FinishReason
from tests.exactness.alone import Alone, beams

Early = Set[FinishReason]


def check_answers(
    request: Request, alone: Alone, early: Early, cut: Set[Branch], may_fail: bool
) -> None:
    """Of what was drawn, or of a prompt alone; those that were `cut` ended one by one."""
    for branch in request.branches:
        ends = early | ({"stop"} if branch in cut else set())
        if not request.draws:
            assert branch.tokens == list(request.prompt_token_ids)
            assert branch.finish_reason in {"length", *ends}
            continue
        want = alone.answer(request, branch.index, branch.num_completion_tokens)
        assert branch.tokens == want.tokens
        assert branch.logprobs == want.logprobs[: len(branch.logprobs) if may_fail else None]
        assert branch.finish_reason in ({want.finish_reason} - {None} or ends)
    assert sorted(s.index for s in request.branches) == list(range(request.params.n))


def check_beams(request: Request, alone: Alone, early: Early, num_drawn: int) -> None:
    """`num_drawn`: tokens of each beam before the last step, which may have gone on with it when
    another one's turn ended it."""
    stops = [(reason, num_drawn + i) for reason in early for i in (0, 1)]
    ends = [alone.beams(request, steps, reason) for reason, steps in ((None, 0), *stops)]
    assert beams(request) in ends


def values_of(request: Request, alone: Alone, early: Early) -> str:
    """Check what the rows of its prompt gave, all of it unless it was ended before. What that was,
    in words."""
    if request.options.pooling is not None:
        return _embedding(request, alone, early)
    if request.every_row is None:
        return "no values"
    values, want = request.row_values, alone.row_values(request)
    if request.every_row == "logits":
        values = [np.asarray(value).tobytes() for value in values]
    assert values == want[: len(values)]
    is_whole = len(values) == len(want)
    assert is_whole or early
    if not values:
        return "no values"
    return f"{request.every_row} of every row, {'whole' if is_whole else 'given up'}"


def _embedding(request: Request, alone: Alone, early: Early) -> str:
    found = embedding(request)
    if found is None:
        assert early
        return "no embedding"
    assert found.tobytes() == alone.embedding(request)
    return f"embedding: {request.options.pooling}"
