"""SPM (sentencepiece BPE) as a `tokenizers` document: merges are built from the scores, where the
model's files do not list them.

Comes in: a `TokenizerSpec` of kind spm. Goes out: the parts of a tokenizer.json. Adds no tokens,
reads no files.

Sentencepiece joins the adjacent pair whose concatenation has the best score, leftmost first.
`tokenizers` joins the pair with the best rank, leftmost first, and ranks differ for different pairs
of one piece. That is the same: inside the span that becomes a piece, joins happen in one order
whatever stands around it, so a piece is only ever joined from one of its pairs and two pairs of one
piece never compete. Different pieces of equal score (none in trained vocabularies) are ranked by
id.
"""

from __future__ import annotations

from typing import Any

from octavo.tokenizer.spec import TokenizerSpec, TokenType

SPACE = "\u2581"  # stands for a blank inside pieces


def spm_parts(spec: TokenizerSpec, vocab: dict[str, int]) -> dict[str, Any]:
    """The normalizer, pre-tokenizer and model of a tokenizer.json."""
    byte_fallback = TokenType.BYTE in spec.types
    unk_token = None
    if not byte_fallback and spec.unk_id is not None:
        unk_token = next(piece for piece, index in vocab.items() if index == spec.unk_id)
    return {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unk_token,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": byte_fallback,
            "ignore_merges": bool(spec.ignore_merges),
            "vocab": vocab,
            "merges": merges_from_scores(spec) if spec.merges is None else spec.merges,
        },
    }


def merges_from_scores(spec: TokenizerSpec) -> list[str]:
    """Return every pair of pieces whose concatenation is a piece, best score of the result
    first."""
    assert spec.scores is not None
    joinable = (TokenType.NORMAL, TokenType.UNUSED)
    ids = [
        index
        for index, kind in enumerate(spec.types)
        if kind in joinable and index not in spec.control_ids and " " not in spec.tokens[index]
    ]
    pieces = {spec.tokens[index] for index in ids}
    # a stable sort: equal scores keep the order of ids
    ids.sort(key=spec.scores.__getitem__, reverse=True)
    merges = []
    for index in ids:
        piece = spec.tokens[index]
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in pieces and right in pieces:
                merges.append(f"{left} {right}")
    return merges
