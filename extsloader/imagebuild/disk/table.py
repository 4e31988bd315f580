"""The partitions of a bootable disk, as EVE lays them out, only smaller.

Types, unique ids, labels and attributes are those of EVE's `make-raw`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from extsloader.model.errors import SettingsError

MIB = 1 << 20
SECTOR = 512
_DISK = "AD6871EE-31F9-4CF3-9E09-6F7A25C30050"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One entry of the table."""

    label: str
    kind: str  # type GUID
    uuid: str
    size: int  # bytes
    attributes: str = ""  # sfdisk(8), "attrs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes of each partition; without `persist` or `pkgs` there is none."""

    efi: int = 64 * MIB
    imga: int = 300 * MIB
    config: int = 5 * MIB
    pkgs: int = 0
    persist: int = 0


def plan_table(sizes: Sizes) -> tuple[Partition, ...]:
    """All partitions in their order on the disk."""
    partitions = (
        Partition(
            label="EFI System",
            kind="C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            uuid=_unique(0x51),
            size=sizes.efi,
            attributes="LegacyBIOSBootable",
        ),
        Partition(
            label="IMGA",
            kind="5DFBF5F4-2848-4BAC-AA5E-0D9A20B745A6",
            uuid=_unique(0x52),
            size=sizes.imga,
            attributes="GUID:49,56",  # EVE's boot loader: successful and of priority 2
        ),
        Partition(
            label="CONFIG",
            kind="13307E62-CD9C-4920-8F9B-91B45828B798",
            uuid=_unique(0x54),
            size=sizes.config,
        ),
        Partition(
            label="PKGS",
            kind="0FC63DAF-8483-4772-8E79-3D69D8477DE4",  # any Linux data: EVE has none of its own
            uuid=_unique(0x58),
            size=sizes.pkgs,
        ),
        Partition(
            label="P3",
            kind="5F24425A-2DFA-11E8-A270-7B663FACCC2C",
            uuid=_unique(0x59),
            size=sizes.persist,
        ),
    )
    return tuple(partition for partition in partitions if partition.size)


def _unique(number: int) -> str:
    return f"{_DISK[:-2]}{number:02X}"


def place(partitions: Sequence[Partition]) -> tuple[list[int], int]:
    """Where each partition begins, and the size of the disk, in bytes; all at whole MiB.

    Raises SettingsError for a size that is none.
    """
    wrong = [p for p in partitions if p.size < 0 or p.size % MIB]
    if wrong:
        problems = (f"partition {p.label}: expected whole MiB, got {p.size} bytes" for p in wrong)
        raise SettingsError(tuple(problems))
    starts, end = [], MIB
    for partition in partitions:
        starts.append(end)
        end += partition.size
    return starts, end + MIB  # the table's copy is at the end


def write_script(partitions: Sequence[Partition]) -> str:
    """What sfdisk(8) reads."""
    starts, _ = place(partitions)
    lines = ["label: gpt", f"label-id: {_DISK}", "unit: sectors"]
    for start, partition in zip(starts, partitions, strict=True):
        attributes = f', attrs="{partition.attributes}"' if partition.attributes else ""
        lines.append(
            f"start={start // SECTOR}, size={partition.size // SECTOR}, type={partition.kind}, "
            f'uuid={partition.uuid}, name="{partition.label}"{attributes}'
        )
    return "\n".join(lines) + "\n"
