"""What one created container leaves for a later agent: one directory, never used twice.

A fresh directory for each container means that no exit file of an earlier one can be mistaken for
its own, however late an old conmon writes it.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from extsloader.adapters.oci.processes import Identity
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.plan import ContainerPlan

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Who runs a container, and of which image it is."""

    digest: Digest
    boot: str  # start times count from boot
    conmon: Identity
    container: Identity | None  # None: the runtime was still at work
    started: bool = False  # its first instruction was executed


class Records:
    """Directories `<run>/containers/<service>.<random>`."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._boot = BOOT_ID.read_text(encoding="ascii").strip()

    def make(self, plan: ContainerPlan) -> Path:
        """A new directory that holds config.json. Raises OSError."""
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix=f"{plan.service}.", dir=self._parent))
        (directory / "exits").mkdir()
        # Nobody looks for it before the runtime is started on it, so there is no half-written one.
        (directory / "config.json").write_text(plan.spec, encoding="utf-8")
        return directory

    def save(
        self, directory: Path, digest: Digest, conmon: Identity, container: Identity | None
    ) -> Record:
        """Remember who is at work in the directory. Raises OSError."""
        record = Record(digest=digest, boot=self._boot, conmon=conmon, container=container)
        _write(directory, record)
        return record

    def mark_started(self, directory: Path) -> None:
        """Remember that the container was started. Raises OSError."""
        record = self.load(directory)
        if record:
            _write(directory, replace(record, started=True))

    def find(self, service: ServiceName) -> tuple[Path, ...]:
        """All directories of the service. A name holds no dot, so no other's match."""
        return tuple(self._parent.glob(f"{service}.*"))

    def load(self, directory: Path) -> Record | None:
        """None where there is none that is whole and of this boot."""
        try:
            record = msgspec.json.decode((directory / "record.json").read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return None
        return record if record.boot == self._boot else None

    def services_of_others(self, digest: Digest) -> tuple[ServiceName, ...]:
        """Everyone with a directory that is not of this image, or does not say of which."""
        found = set()
        for directory in self._parent.glob("*.*"):
            record = self.load(directory)
            if record is None or record.digest != digest:
                found.add(ServiceName(directory.name.partition(".")[0]))
        return tuple(sorted(found))

    @staticmethod
    def remove(directory: Path) -> None:
        """Remove it; no error when it is gone. Raises OSError."""
        if directory.exists():
            shutil.rmtree(directory)


def _write(directory: Path, record: Record) -> None:
    draft = directory / "record.new"
    draft.write_bytes(msgspec.json.encode(record))
    draft.replace(directory / "record.json")
