"""Housekeeping of the image store, a directory that only root reads and writes.

Half-written images need no sweep: the verify helper writes them to nameless files (O_TMPFILE) that
end with it, and gives a name only to a whole image. One that was to replace another has a second
name for a moment; a crash in that moment leaves it.
"""

import re
from pathlib import Path

from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest
from extsloader.model.reasons import Code

_LEFT_OVER = re.compile(r"[0-9a-f]{64}\.img\.new")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Store:
    """`ImageStorePort` over one directory of `<digest>.img` files."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def ensure(self) -> None:
        """Make the directory, closed to everybody else, without leftovers.

        Raises MachineError(E_IO).
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            self._sweep()
        except OSError as error:
            raise _failed(f"make the image store {self._directory}", error) from error

    def _sweep(self) -> None:
        for path in self._directory.iterdir():
            if _LEFT_OVER.fullmatch(path.name) and path.is_file():
                path.unlink()

    def drop(self, digest: Digest) -> None:
        """Delete one image; a mount of it goes on. Raises MachineError(E_IO)."""
        if not _DIGEST.fullmatch(digest):
            raise MachineError(Code.PATH, f"delete {digest!r} from the store", "it is no digest")
        try:
            (self._directory / f"{digest}.img").unlink(missing_ok=True)
        except OSError as error:
            raise _failed(f"delete the image {digest[:12]} from the store", error) from error


def _failed(stage: str, error: OSError) -> MachineError:
    return MachineError(Code.IO, stage, (error.strerror or str(error)).lower())
