"""The name of a model on the hub: `hf:owner/name[@revision][:file.gguf]`.

Comes in: what a user typed. Goes out: its parts, none of which leads out of a folder. Knows no
network and no disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from octavo.errors import UsageError

PREFIX = "hf:"
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_NAME = re.compile(
    rf"hf:(?P<owner>{_PART})/(?P<name>{_PART})(?:@(?P<revision>[^\s:@]+))?(?::(?P<file>[^:]+))?"
)
MAIN = "main"
_LONGEST = 96  # characters of owner/name


@dataclass(frozen=True, slots=True)
class HubName:
    owner: str
    name: str
    revision: str  # a branch, a tag or a commit
    file: str | None  # a GGUF file of the repository

    @property
    def repo(self) -> str:
        return f"{self.owner}/{self.name}"

    def of_file(self, file: str) -> str:
        """Return how that file of the same revision is called."""
        revision = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{PREFIX}{self.repo}{revision}:{file}"

    def __str__(self) -> str:
        return self.of_file(self.file or "").removesuffix(":")


def parse(text: str) -> HubName:
    """Raises UsageError."""
    found = _NAME.fullmatch(text)
    if found is None:
        raise _malformed(text)
    owner, name, revision, file = found.group("owner", "name", "revision", "file")
    if len(f"{owner}/{name}") > _LONGEST or any(odd in f"{owner}/{name}" for odd in ("--", "..")):
        raise _malformed(text)  # the hub gives no such names; its cache writes "--" for "/"
    for path in (revision, file):
        if path is not None and not is_inside(path):
            raise _malformed(text)
    return HubName(owner, name, revision or MAIN, file)


def is_inside(path: str) -> bool:
    """Whether a path stays in the folder that it is put into."""
    return {"", ".", ".."}.isdisjoint(path.split("/"))


def _malformed(text: str) -> UsageError:
    return UsageError(
        f"{text[:200]!r} is no name on the hub: expected hf:owner/name, hf:owner/name@revision or "
        "hf:owner/name:file.gguf"
    )
