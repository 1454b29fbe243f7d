"""History: what the cache did for the last requests of each tenant. Nobody sees another's.

Knows outcomes and ids. Bounded by requests and by bytes: a record has a line for each prompt.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from octavo.server.outcome import Outcome
from octavo.server.packed import packed

_OF_ANSWER = re.compile("^(chatcmpl-|cmpl-|msg_|resp_)")  # what the id of one begins with
MOST = 1000  # records of a tenant
MOST_BYTES = 4 << 20  # and their bytes, but for the newest one


class History:
    def __init__(self) -> None:
        self._tenants: dict[str, _Records] = {}

    def add(self, outcome: Outcome) -> None:
        """Keep a request that has ended, if it had prompts."""
        if outcome.prompts:
            records = self._tenants.setdefault(outcome.tenant, _Records())
            records.add(outcome.id, packed(_record(outcome)))

    def find(self, tenant: str, id: str) -> bytes | None:
        """The record as JSON, by the request's id or that of its answer."""
        records = self._tenants.get(tenant)
        if records is None:
            return None
        own = _OF_ANSWER.sub("", id)
        found = (records.find(each) for each in (id, own, f"req_{own}"))
        return next((each for each in found if each is not None), None)

    def sums(self, tenant: str, cache_key: str) -> dict[str, object]:
        """What the cache did for the last requests of a tenant that have this label."""
        records = self._tenants.get(tenant)
        found = [] if records is None else [each for each in records if _key(each) == cache_key]
        prompts = [prompt for each in found for prompt in each["prompts"]]
        matched = (prompt["cache"]["matched_tokens"] for prompt in prompts if prompt["cache"])
        return {
            "prompt_cache_key": cache_key,
            "num_requests": len(found),
            "prompt_tokens": sum(prompt["prompt_tokens"] for prompt in prompts),
            "matched_tokens": sum(matched),
        }


class _Records:
    def __init__(self) -> None:
        self._by_id: OrderedDict[str, bytes] = OrderedDict()  # oldest first
        self._num_bytes = 0

    def add(self, id: str, record: bytes) -> None:
        """An id that comes again means the newer request."""
        self._num_bytes += len(record) - len(self._by_id.pop(id, b""))
        self._by_id[id] = record
        while len(self._by_id) > MOST or (self._num_bytes > MOST_BYTES and len(self._by_id) > 1):
            self._num_bytes -= len(self._by_id.popitem(last=False)[1])

    def find(self, id: str) -> bytes | None:
        return self._by_id.get(id)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(orjson.loads, self._by_id.values())


def _key(record: Mapping[str, Any]) -> object:
    return record.get("prompt_cache_key")


def _record(outcome: Outcome) -> dict[str, object]:
    return {
        "id": outcome.id,
        "object": "cache.request",
        "ended": int(time.time()),  # seconds since 1970
        "route": outcome.route,
        "status": outcome.code,
        "finish": outcome.finish,
        **({} if outcome.cache_key is None else {"prompt_cache_key": outcome.cache_key}),
        "prompts": [
            {"prompt_tokens": len(ids), "cache": None if cache is None else asdict(cache)}
            for ids, cache in zip(outcome.prompts, outcome.caches, strict=True)
        ],
    }
