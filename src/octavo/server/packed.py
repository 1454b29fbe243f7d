"""JSON that is kept, in as many bytes as it has.

What orjson gives keeps the whole of the buffer it was written in, 4 KiB at least.
"""

from __future__ import annotations

import orjson


def packed(content: object) -> bytes:
    return bytes(memoryview(orjson.dumps(content)))
