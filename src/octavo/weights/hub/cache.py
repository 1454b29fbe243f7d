"""Where a repository lies in huggingface_hub's cache, whose layout is documented and shared with
other programs: `blobs/` by ETag, `snapshots/COMMIT/` with links to them, `refs/` from names to
commits.

Writes `refs/` only; all else is put there by huggingface_hub, or renamed in by `blob`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from octavo.weights.hub.choice import Sizes
from octavo.weights.hub.name import HubName


@dataclass(frozen=True, slots=True)
class RepoCache:
    folder: Path

    @classmethod
    def of(cls, name: HubName) -> RepoCache:
        folder = f"models--{name.owner}--{name.name}"
        return cls(Path(constants.HF_HUB_CACHE).expanduser() / folder)

    def blob(self, etag: str) -> Path:
        return self.folder / "blobs" / etag

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def commit(self, revision: str) -> str | None:
        """Return what `revision` was when it was last fetched, for starts without a network."""
        if re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        try:
            return (self.folder / "refs" / revision).read_text().strip()
        except (OSError, ValueError):
            return None

    def remember(self, revision: str, commit: str) -> None:
        """Note what `revision` is, once all that is wanted of it is here."""
        if self.commit(revision) == commit:
            return
        ref = self.folder / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)

    def sizes(self, commit: str) -> Sizes:
        """Return the files that are here of a commit."""
        root = self.snapshot(commit)
        files = [each for each in root.rglob("*") if each.is_file()]  # a link into nothing is none
        return {each.relative_to(root).as_posix(): each.stat().st_size for each in files}
