"""Flags of `octavo run` for a short answer in which nothing is drawn."""

from __future__ import annotations

GREEDY = ("--temperature", "0", "--max-tokens", "8")
