"""What a response counts: Responses has other words for it than chat."""

from __future__ import annotations

from octavo.protocol.common import Vocabulary
from octavo.protocol.reasoning import reasoning_tokens
from octavo.request import RequestOutput


def usage_of(output: RequestOutput, reasoning: str, vocabulary: Vocabulary) -> dict[str, object]:
    """The tokens of an output with one answer, whose `reasoning` this is."""
    usage = output.usage
    (completion,) = output.outputs
    spent = reasoning_tokens(completion.token_ids, reasoning, vocabulary.token_bytes)
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": spent},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
