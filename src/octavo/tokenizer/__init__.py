"""Text to token ids and back: byte-level BPE and SPM, chat templates, streaming detokenisation.

`chat_template` comes in with the first chat: what it needs takes time at a start.
Knows vocabularies as plain lists (`TokenizerSpec`). Knows no model files, no arrays of weights, no
requests.
"""

from __future__ import annotations

from octavo.tokenizer.detokenizer import Detokenizer
from octavo.tokenizer.long_text import TooManyTokensError
from octavo.tokenizer.spec import TokenizerSpec, TokenType
from octavo.tokenizer.tokenizer import Tokenizer

__all__ = [
    "Detokenizer",
    "TokenType",
    "Tokenizer",
    "TokenizerSpec",
    "TooManyTokensError",
]
