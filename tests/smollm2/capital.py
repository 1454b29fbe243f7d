"""The prompt that most of these tests give, how it is drawn, and the text of an answer."""

from __future__ import annotations

from octavo import SamplingParams
from octavo.request import RequestOutput

GREEDY = SamplingParams(temperature=0, max_tokens=12)
PROMPT = "The capital of France is"


def text(output: RequestOutput) -> str:
    return output.outputs[0].text
