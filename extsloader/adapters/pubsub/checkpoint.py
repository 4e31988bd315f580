"""The items of a publication as files, for tools and people.

A publisher in Go reads them back when it starts. This one does not: what it said before it was
killed need not be true any more, and a stale "ready" lets an update pass that does not run.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MAX_NAME = 255  # bytes of a file's name (limits.h, NAME_MAX)
RESTARTED = "restarted"


class Checkpoint:
    """One directory, in memory: no call blocks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def begin(self, items: Mapping[str, bytes]) -> int:
        """Have exactly these items; returns the restart counter. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted = {f"{key}.json" for key in items}
        for path in self._directory.iterdir():
            stale = path.suffix == ".json" and path.name not in wanted
            if stale or path.name.startswith("tmp"):
                path.unlink()
        for key, content in items.items():
            self.write(key, content)
        return self._read_restarted()

    def write(self, key: str, content: bytes) -> None:
        """Replace the item's file whole. Raises OSError, ValueError for an impossible key."""
        self._replace(self._path(key), content)

    def remove(self, key: str) -> None:
        """No error when it is gone. Raises OSError."""
        self._path(key).unlink(missing_ok=True)

    def write_restarted(self, count: int) -> None:
        """No file means 0. Raises OSError."""
        path = self._directory / RESTARTED
        if count:
            self._replace(path, str(count).encode())
        else:
            path.unlink(missing_ok=True)

    def _read_restarted(self) -> int:
        """What cannot be read counts as 1: the publisher did run before."""
        try:
            text = (self._directory / RESTARTED).read_bytes()[:20]
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 1

    def _path(self, key: str) -> Path:
        name = f"{key}.json"
        if not key or "/" in key or "\0" in key or len(os.fsencode(name)) > MAX_NAME:
            raise ValueError(f"no key of a publication: {key!r}")
        return self._directory / name

    def _replace(self, path: Path, content: bytes) -> None:
        """Whole for readers. Not synced, as Go does: no file below /run outlives a power cut."""
        descriptor, temporary = tempfile.mkstemp(prefix="tmp", dir=self._directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).rename(path)
        except OSError:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
