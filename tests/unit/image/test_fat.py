"""Real file systems, made by mkfs.vfat and filled by mtools, then damaged byte by byte."""

import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extsloader.image import files
from extsloader.image.fat import find_extents, list_root
from extsloader.image.files import File, FileSystemError, Listing
from extsloader.image.superblock import Read

NAMES = ("rootfs-pkgs.img", "pkgs.img")
CONTENT = b"".join(number.to_bytes(4) for number in range(75_000))
SIZES = {12: 2 << 20, 16: 16 << 20, 32: 40 << 20}


def make(path: Path, bits: int) -> Path:
    with path.open("wb") as file:
        file.truncate(SIZES[bits])
    command = ["mkfs.vfat", "-F", str(bits), "-s", "1", "-n", "STICK", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def put(stick: Path, name: str, content: bytes) -> None:
    command = ["mcopy", "-o", "-i", str(stick), "-", f"::{name}"]
    subprocess.run(command, input=content, check=True, capture_output=True)


def remove(stick: Path, name: str) -> None:
    subprocess.run(["mdel", "-i", stick, f"::{name}"], check=True, capture_output=True)


def reading(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def find(data: bytes) -> Listing:
    return list_root(reading(data), len(data), NAMES)


def content_of(data: bytes) -> bytes:
    found = find(data).file
    assert found is not None
    extents = find_extents(reading(data), len(data), found)
    assert [e.start for e in extents] == starts(e.size for e in extents)
    return b"".join(data[e.offset or 0 :][: e.size] for e in extents)


def starts(sizes: Iterator[int]) -> list[int]:
    found, at = [], 0
    for size in sizes:
        found.append(at)
        at += size
    return found


@pytest.fixture(params=[12, 16, 32], scope="module")
def stick(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("fat") / "stick", request.param)


def test_a_file_is_found_by_its_long_name_and_read_back(stick: Path) -> None:
    put(stick, "notes.txt", b"hello")
    put(stick, "rootfs-pkgs.img", CONTENT)

    data = stick.read_bytes()

    assert find(data).label == "STICK"
    assert content_of(data) == CONTENT


def count_free(stick: Path) -> int:
    shown = subprocess.run(["mdir", "-i", stick], check=True, capture_output=True, text=True).stdout
    return int(shown.splitlines()[-2].replace("bytes free", "").replace(" ", ""))


@pytest.mark.parametrize("bits", SIZES)
def test_a_file_in_many_pieces_is_read_back(tmp_path: Path, bits: int) -> None:
    stick = make(tmp_path / "stick", bits)
    for number in range(20):
        put(stick, f"piece{number}", bytes(3000))
    put(stick, "rest", bytes(count_free(stick) - 100_000))
    for number in range(0, 20, 2):
        remove(stick, f"piece{number}")

    put(stick, "rootfs-pkgs.img", CONTENT[:120_000])

    data = stick.read_bytes()
    file = find(data).file
    assert file is not None
    assert len(find_extents(reading(data), len(data), file)) > 5
    assert content_of(data) == CONTENT[:120_000]


def test_names_have_no_case_and_the_first_that_was_asked_for_wins(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick", 12)
    put(stick, "PKGS.IMG", b"second")
    assert content_of(stick.read_bytes()) == b"second"

    put(stick, "RootFS-Pkgs.img", b"first")
    assert content_of(stick.read_bytes()) == b"first"


def test_a_root_directory_of_more_than_one_cluster_is_read_to_its_end(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick", 32)
    for number in range(60):
        put(stick, f"a long name that takes several entries {number}", b"")
    put(stick, "pkgs.img", b"found")

    assert content_of(stick.read_bytes()) == b"found"


@pytest.mark.parametrize("label", ["PERSIST 1", "A  B  C  D", "12345678901", "<>"])
def test_a_label_is_taken_as_it_is(tmp_path: Path, label: str) -> None:
    stick = make(tmp_path / "stick", 12)
    data = stick.read_bytes().replace(b"STICK      \x08", label.encode().ljust(11) + b"\x08")

    assert find(data).label == label


def entry(short: bytes, cluster: int = 2, size: int = 3, attributes: int = 0x20) -> bytes:
    return struct.pack("<11sB8xH4xHI", short, attributes, 0, cluster, size)


def long_parts(name: bytes, short: bytes, *, first: int, checksum: int = -1) -> bytes:
    """Parts numbered down from `first`, 26 bytes of the name in each, as on the medium."""
    if checksum < 0:
        checksum = 0
        for byte in short:
            checksum = ((checksum << 7 | checksum >> 1) & 0xFF) + byte & 0xFF
    name += bytes(-len(name) % 26)
    pieces = [name[at : at + 26] for at in range(0, len(name), 26)]
    numbers = [first, *range((first & 0x1F) - 1, (first & 0x1F) - len(pieces), -1)]
    return b"".join(
        struct.pack("<B10sBBB12sH4s", n & 0xFF, p[:10], 0x0F, 0, checksum, p[10:22], 0, p[22:])
        for n, p in zip(numbers, reversed(pieces), strict=True)
    )


SHORT, WANTED = b"ROOTFS~1IMG", "rootfs-pkgs.img".encode("utf-16-le")
ENTRIES = {
    "good": (long_parts(WANTED, SHORT, first=0x42) + entry(SHORT), True),
    "short name alone": (entry(b"PKGS    IMG"), True),
    "name twice": (entry(b"PKGS    IMG") + entry(b"PKGS    IMG", cluster=5), True),
    "checksum of another": (
        long_parts(WANTED, SHORT, first=0x42, checksum=1) + entry(SHORT),
        False,
    ),
    "without its first part": (long_parts(WANTED, SHORT, first=0x42)[32:] + entry(SHORT), False),
    "numbered from nowhere": (long_parts(WANTED, SHORT, first=0x45) + entry(SHORT), False),
    "sixty parts": (long_parts(WANTED * 60, SHORT, first=0x7F) + entry(SHORT), False),
    "parts of nothing": (long_parts(WANTED, SHORT, first=0x42), False),
    "half a surrogate": (long_parts(b"\0\xd8" + WANTED, SHORT, first=0x42) + entry(SHORT), False),
    "not text": (entry(b"\xffKGS\x01\0 \0IMG"), False),
    "a path": (entry(b"../PKGS IMG"), False),
    "deleted": (entry(b"\xe5KGS    IMG"), False),
    "behind the end": (bytes(32) + entry(b"PKGS    IMG"), False),
    "a directory": (entry(b"PKGS    IMG", attributes=0x10), False),
    "a label": (entry(b"PKGS    IMG", attributes=0x08), False),
}


@pytest.mark.parametrize(("entries", "found"), ENTRIES.values(), ids=ENTRIES.keys())
def test_names_are_believed_only_when_all_of_them_fits(
    tmp_path: Path, entries: bytes, found: bool
) -> None:
    data = bytearray(make(tmp_path / "stick", 12).read_bytes())
    root = data.index(b"STICK      \x08")
    data[root : root + len(entries)] = entries

    file = find(bytes(data)).file

    assert (file is not None) == found
    assert file is None or file.node == 2


def test_a_root_directory_without_an_end_is_refused(tmp_path: Path) -> None:
    data = bytearray(make(tmp_path / "stick", 32).read_bytes())
    reserved = int.from_bytes(data[14:16], "little") * 512
    root = data.index(b"STICK      \x08")
    data[root : root + 512] = entry(b"OTHER   TXT") * 16
    data[reserved + 8 : reserved + 12] = (2).to_bytes(4, "little")

    with pytest.raises(FileSystemError, match="larger than"):
        find(bytes(data))


def test_a_file_in_too_many_pieces_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_EXTENTS", 10)
    stick = make(tmp_path / "stick", 16)
    put(stick, "pkgs.img", CONTENT)
    data = bytearray(stick.read_bytes())
    file = find(bytes(data)).file
    assert file is not None
    table = int.from_bytes(data[14:16], "little") * 512
    count = -(-file.size // 512)
    for number in range(count):  # each second cluster
        at = table + (file.node + 2 * number) * 2
        follows = file.node + 2 * number + 2 if number < count - 1 else 0xFFFF
        data[at : at + 2] = follows.to_bytes(2, "little")

    with pytest.raises(FileSystemError, match="more than 10 pieces"):
        find_extents(reading(bytes(data)), len(data), file)


def test_other_files_directories_and_deleted_ones_are_not_meant(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick", 12)
    put(stick, "rootfs-pkgs.img", b"x")
    remove(stick, "rootfs-pkgs.img")
    subprocess.run(["mmd", "-i", stick, "::pkgs.img"], check=True)
    put(stick, "pkgs.img.old", b"x")

    assert find(stick.read_bytes()).file is None


def test_an_empty_file_has_no_bytes(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick", 12)
    put(stick, "pkgs.img", b"")

    assert content_of(stick.read_bytes()) == b""


# Offsets of the boot sector: 11 sector size, 13 sectors a cluster, 14 reserved, 16 tables,
# 17 root entries, 19 sectors, 22 sectors of a table.
BROKEN: dict[str, Callable[[bytearray], None]] = {
    "no sector size": lambda d: d.__setitem__(slice(11, 13), b"\0\0"),
    "odd sector size": lambda d: d.__setitem__(slice(11, 13), b"\1\2"),
    "no clusters": lambda d: d.__setitem__(13, 0),
    "odd clusters": lambda d: d.__setitem__(13, 3),
    "no table": lambda d: d.__setitem__(16, 0),
    "table of no size": lambda d: d.__setitem__(slice(22, 24), b"\0\0"),
    "table too small": lambda d: d.__setitem__(slice(22, 24), b"\1\0"),
    "larger than the medium": lambda d: d.__setitem__(slice(19, 21), b"\xff\xff"),
    "a sector more than there is": lambda d: d.__delitem__(slice(-512, None)),
    "root directory over everything": lambda d: d.__setitem__(slice(17, 19), b"\xff\xff"),
    "cut off": lambda d: d.__delitem__(slice(40, None)),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_a_boot_sector_that_lies_is_refused(
    tmp_path: Path, damage: Callable[[bytearray], None]
) -> None:
    data = bytearray(make(tmp_path / "stick", 12).read_bytes())
    damage(data)

    with pytest.raises(FileSystemError):
        find(bytes(data))


CHAINS = {
    "ends early": 0xFFFF,
    "free": 0,
    "reserved": 1,
    "bad": 0xFFF7,
    "out of range": 0xFFF0,
    "loop": 3,
}


@pytest.mark.parametrize("value", CHAINS.values(), ids=CHAINS.keys())
def test_a_chain_that_is_not_as_long_as_the_file_is_refused(tmp_path: Path, value: int) -> None:
    stick = make(tmp_path / "stick", 16)
    put(stick, "pkgs.img", CONTENT)
    data = bytearray(stick.read_bytes())
    file = find(bytes(data)).file
    assert file is not None
    reserved = int.from_bytes(data[14:16], "little") * 512
    at = reserved + (file.node + 5) * 2
    data[at : at + 2] = value.to_bytes(2, "little")

    with pytest.raises(FileSystemError):
        find_extents(reading(bytes(data)), len(data), file)


@pytest.mark.parametrize("beyond", [False, True], ids=["reserved", "behind the last"])
def test_a_chain_whose_last_cluster_is_none_is_refused(tmp_path: Path, beyond: bool) -> None:
    """The table has an end mark there, so only the number tells."""
    stick = make(tmp_path / "stick", 16)
    put(stick, "pkgs.img", bytes(1000))
    data = bytearray(stick.read_bytes())
    file = find(bytes(data)).file
    assert file is not None
    table = int.from_bytes(data[14:16], "little") * 512
    root = data.index(b"STICK      \x08")
    entries = int.from_bytes(data[17:19], "little")
    last = (len(data) - root - entries * 32) // 512 + 2 if beyond else 1
    for cluster, value in ((file.node, last), (last, 0xFFFF)):
        at = table + cluster * 2
        data[at : at + 2] = value.to_bytes(2, "little")

    with pytest.raises(FileSystemError, match="cluster"):
        find_extents(reading(bytes(data)), len(data), file)


def test_a_chain_that_is_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick", 16)
    put(stick, "pkgs.img", CONTENT)
    data = stick.read_bytes()
    file = find(data).file
    assert file is not None

    with pytest.raises(FileSystemError, match="longer than the file"):
        find_extents(reading(data), len(data), File(file.name, file.node, 1000))


@pytest.fixture(scope="module")
def sticks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    found = {}
    for bits in SIZES:
        path = make(tmp_path_factory.mktemp("fat") / "stick", bits)
        put(path, "rootfs-pkgs.img", CONTENT)
        found[bits] = path.read_bytes()
    return found


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.sampled_from(sorted(SIZES)),
    edits=st.lists(
        st.tuples(st.integers(0, 40_000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=8
    ),
)
def test_whatever_the_bytes_nothing_is_read_outside_or_for_ever(
    sticks: dict[int, bytes], bits: int, edits: list[tuple[int, bytes]]
) -> None:
    data = sticks[bits]
    patched = {at + i: byte for at, raw in edits for i, byte in enumerate(raw)}
    reads = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        assert offset >= 0
        assert offset + length <= len(data)
        assert reads < 10_000
        part = bytearray(data[offset : offset + length])
        for at, byte in patched.items():
            if offset <= at < offset + length:
                part[at - offset] = byte
        return bytes(part)

    try:
        found = list_root(read, len(data), NAMES)
        extents = find_extents(read, len(data), found.file) if found.file else ()
    except FileSystemError:
        return
    assert all(e.offset and e.offset + e.size <= len(data) for e in extents)
