"""SPM (sentencepiece BPE) by `tokenizers`: merges are built from the scores, where the model's
files do not list them.

Comes in: a `TokenizerSpec` of kind spm. Goes out: a tokenizer that has no added tokens. Reads no
files.

Sentencepiece joins the adjacent pair whose concatenation has the best score, leftmost first.
`tokenizers` joins the pair with the best rank, leftmost first, and ranks differ for different pairs
of one piece. That is the same: inside the span that becomes a piece, joins happen in one order
whatever stands around it, so a piece is only ever joined from one of its pairs and two pairs of one
piece never compete. Different pieces of equal score (none in trained vocabularies) are ranked by
id.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tokenizers

from octavo.tokenizer.spec import TokenizerSpec, TokenType

SPACE = "\u2581"  # stands for a blank inside pieces

Merges = npt.NDArray[np.int32]  # (num_merges, 2) ids of left and right, the best first


def plain_tokenizer(
    spec: TokenizerSpec, vocab: dict[str, int], merges: list[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """Make a tokenizer of these names and merges."""
    byte_fallback = bool((np.asarray(spec.token_types) == TokenType.BYTE).any())
    unk_token = None
    if not byte_fallback and spec.unk_id is not None:
        unk_token = next(piece for piece, index in vocab.items() if index == spec.unk_id)
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab,
            merges,
            unk_token=unk_token,
            fuse_unk=True,
            byte_fallback=byte_fallback,
            ignore_merges=bool(spec.ignore_merges),
        )
    )
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", SPACE)
    return tokenizer


def merges_from_scores(spec: TokenizerSpec) -> Merges:
    """Find every pair of pieces whose concatenation is a piece, best score of the result first."""
    assert spec.scores is not None
    joinable = (TokenType.NORMAL, TokenType.UNUSED)
    ids = [
        index
        for index, kind in enumerate(spec.types)
        if kind in joinable and index not in spec.control_ids and " " not in spec.tokens[index]
    ]
    id_of = {spec.tokens[index]: index for index in ids}
    # a stable sort: equal scores keep the order of ids
    ids.sort(key=spec.scores.__getitem__, reverse=True)
    merges = []
    for index in ids:
        piece = spec.tokens[index]
        for cut in range(1, len(piece)):
            left, right = id_of.get(piece[:cut]), id_of.get(piece[cut:])
            if left is not None and right is not None:
                merges.append((left, right))
    return np.array(merges, np.int32).reshape(-1, 2)
