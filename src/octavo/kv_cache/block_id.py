"""The id of a KV block: its place in the page storage."""

from __future__ import annotations

from typing import NewType

BlockId = NewType("BlockId", int)
