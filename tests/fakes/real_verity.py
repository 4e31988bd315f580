"""Whether this machine's kernel has dm-verity, and what it makes of an image."""

from contextlib import suppress
from pathlib import Path

import pytest

from extsloader.adapters.machine_facts import read_machine
from extsloader.model.settings import Settings

NO_VERITY = read_machine(Settings()).no_verity

needs_verity = pytest.mark.skipif(bool(NO_VERITY), reason=NO_VERITY)
needs_none = pytest.mark.skipif(not NO_VERITY, reason="this machine has dm-verity")


def mapped() -> list[str]:
    """Names of our devices."""
    names = []
    for path in Path("/sys/block").glob("dm-*/dm/name"):
        with suppress(OSError):  # it is going away
            names.append(path.read_text().strip())
    return sorted(name for name in names if name.startswith("extsloader-"))


def flip(path: Path, offset: int) -> None:
    """One bit of a file is another one, as on a disk that goes bad."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def forget_pages() -> None:
    """What was read must be read from the device again."""
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
