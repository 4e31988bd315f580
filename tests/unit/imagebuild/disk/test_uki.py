import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from extsloader.imagebuild.disk.uki import FIRMWARE, SOURCES, find_end, make_uki
from extsloader.imagebuild.squashfs import EPOCH
from extsloader.model.errors import MachineError


@pytest.fixture(name="uki")
def _uki(tmp_path: Path) -> Path:
    """A boot loader with sections of sizes that end within a page, at its end, and behind it."""
    sizes = dict(zip(SOURCES, (1, 4096, 4097, 100_000), strict=True))
    sections = {name: tmp_path / name[1:] for name in sizes}
    for name, path in sections.items():
        path.write_bytes(name[1].encode() * sizes[name])
    make_uki(tmp_path / "uki.efi", "amd64", sections)
    return tmp_path / "uki.efi"


def test_no_section_shares_a_page_with_another(uki: Path) -> None:
    found = read_addresses(uki)

    assert list(SOURCES) == [name for name, _, _ in found[-4:]]
    pages = [(address // 4096, (address + size - 1) // 4096) for _, size, address in found[-5:]]
    assert all(last < first for (_, last), (first, _) in pairwise(pages))


def test_the_time_of_day_and_the_checksum_are_not_in_it(uki: Path) -> None:
    program = uki.read_bytes()
    (start,) = struct.unpack_from("<I", program, 0x3C)

    assert struct.unpack_from("<I", program, start + 8) == (EPOCH,)
    assert struct.unpack_from("<I", program, start + 24 + 64) == (0,)


def test_the_end_of_a_stub_counts_from_where_it_is_loaded() -> None:
    stub = bytearray(512)
    struct.pack_into("<I", stub, 0x3C, 0x80)
    struct.pack_into("<Q24xI", stub, 0x80 + 24 + 24, 0x1_4000_0000, 0x1801)

    assert find_end(bytes(stub)) == 0x1_4000_2000


def test_an_architecture_whose_stub_is_missing_is_told_where_to_get_it(tmp_path: Path) -> None:
    if Path("/usr/lib/systemd/boot/efi", FIRMWARE["arm64"].stub).exists():
        pytest.skip("the stub of arm64 is installed")

    with pytest.raises(MachineError, match=r"linuxaa64\.efi\.stub is missing") as caught:
        make_uki(tmp_path / "uki.efi", "arm64", {})

    assert "systemd-boot-efi" in caught.value.problem.hint


def read_addresses(program: Path) -> list[tuple[str, int, int]]:
    """Name, size and address of each section."""
    out = subprocess.run(["objdump", "-h", program], check=True, capture_output=True, text=True)
    rows = [
        line.split()
        for line in out.stdout.splitlines()
        if line.split()[:1] and line.split()[0].isdigit()
    ]
    return [(row[1], int(row[2], 16), int(row[3], 16)) for row in rows]
