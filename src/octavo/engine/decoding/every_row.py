"""Every row: what a request wants of each token of its prompt, beside what is drawn after it.

Log-probabilities with the likeliest tokens (`prompt_logprobs`), whole rows of logits, or the
log-probability of the next token alone (scores).
"""

from __future__ import annotations

from typing import Any

from octavo.engine.decoding.decoding import HeadOutput
from octavo.engine.decoding.drawing import Drawing


def row_value(output: HeadOutput, drawing: Drawing) -> Any:
    """Return what the row at `output.position` gives: of the token that follows it, or its
    logits."""
    request, logits = output.branch.request, output.logits
    assert logits is not None
    if request.every_row == "logits":
        return logits
    token = request.prompt_token_ids[output.position + 1]
    if request.every_row == "scores":
        return logits[token] - output.log_sum_exp
    count = request.params.prompt_logprobs or 0
    return drawing.logprobs(logits, output.log_sum_exp, token, count)
