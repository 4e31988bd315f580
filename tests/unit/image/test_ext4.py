"""Real file systems, made by mkfs.ext4 and filled by debugfs."""

from pathlib import Path

import pytest

from extsloader.image.ext4 import find_extents, list_root
from extsloader.image.files import FileSystemError, Listing
from extsloader.image.superblock import Read
from extsloader.model.reasons import Code
from tests.fakes.ext4 import change, make, put

NAMES = ("rootfs-pkgs.img", "pkgs.img")
CONTENT = b"".join(number.to_bytes(4) for number in range(1, 75_001))


def reading(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def find(data: bytes) -> Listing:
    return list_root(reading(data), len(data), NAMES)


def content_of(data: bytes) -> bytes:
    found = find(data).file
    assert found is not None
    parts, at = [], 0
    for extent in find_extents(reading(data), len(data), found):
        assert extent.start == at
        at += extent.size
        there = extent.offset
        parts.append(bytes(extent.size) if there is None else data[there : there + extent.size])
    assert at == found.size
    return b"".join(parts)


def refusal(data: bytes) -> FileSystemError:
    with pytest.raises(FileSystemError) as caught:
        content_of(data)
    return caught.value


KINDS = {
    "as mkfs makes it": (),
    "small blocks": ("-b", "1024"),
    "large blocks": ("-b", "4096", "-I", "512"),
    "blocks of 64 KiB": ("-b", "65536", "-N", "64"),
    "small descriptors": ("-O", "^64bit,^metadata_csum"),
    "no index of directories": ("-O", "^dir_index,^has_journal"),
    "no kinds in names": ("-O", "^filetype"),
    "groups not together": ("-O", "^flex_bg", "-g", "2048"),
    "clusters": ("-O", "bigalloc", "-b", "4096", "-C", "16384"),
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_a_file_is_found_by_its_name_and_read_back(tmp_path: Path, options: list[str]) -> None:
    stick = make(tmp_path / "stick", *options, size=64 << 20)
    put(stick, "notes.txt", b"hello")
    put(stick, "rootfs-pkgs.img", CONTENT)

    assert content_of(stick.read_bytes()) == CONTENT


def test_the_first_name_that_was_asked_for_wins_and_case_matters(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick")
    put(stick, "PKGS.IMG", b"other")
    assert find(stick.read_bytes()).file is None

    put(stick, "pkgs.img", b"second")
    assert content_of(stick.read_bytes()) == b"second"

    put(stick, "rootfs-pkgs.img", b"first")
    assert content_of(stick.read_bytes()) == b"first"


def test_deleted_files_and_longer_names_are_not_meant(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick")
    put(stick, "rootfs-pkgs.img", b"x")
    put(stick, "pkgs.img.old", b"x")
    change(stick, "rm rootfs-pkgs.img")

    assert find(stick.read_bytes()).file is None


def test_a_file_in_many_pieces_has_a_tree_and_is_read_back(tmp_path: Path) -> None:
    """Freed blocks here and there, so that one node does not hold all extents."""
    stick = make(tmp_path / "stick", "-b", "1024")
    change(stick, *(f"setb {number}" for number in range(3001, 8000, 3)))
    put(stick, "rootfs-pkgs.img", CONTENT * 16)

    data = stick.read_bytes()
    file = find(data).file
    assert file is not None
    assert len(find_extents(reading(data), len(data), file)) > 400
    assert content_of(data) == CONTENT * 16


def test_holes_read_as_zeros(tmp_path: Path) -> None:
    content = bytes(50_000) + CONTENT + bytes(200_000) + CONTENT + bytes(70_000)
    stick = make(tmp_path / "stick")
    put(stick, "pkgs.img", content)

    data = stick.read_bytes()
    file = find(data).file
    assert file is not None
    assert any(e.offset is None for e in find_extents(reading(data), len(data), file))
    assert content_of(data) == content


def test_room_that_was_never_written_reads_as_zeros(tmp_path: Path) -> None:
    """Otherwise an image would be mixed with what lay there before."""
    stick = make(tmp_path / "stick", "-b", "1024")
    put(stick, "pkgs.img", CONTENT[:10_000])
    change(stick, "fallocate pkgs.img 10 30", "set_inode_field pkgs.img size 30000")

    assert content_of(stick.read_bytes()) == CONTENT[:10_000] + bytes(20_000)


def test_room_behind_the_end_belongs_to_nobody(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick", "-b", "1024")
    put(stick, "pkgs.img", CONTENT[:10_000])
    change(stick, "fallocate pkgs.img 10 30")

    assert content_of(stick.read_bytes()) == CONTENT[:10_000]


def test_a_root_directory_of_many_blocks_is_read_to_its_end(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick", "-b", "1024")
    (tmp_path / "empty").touch()
    change(stick, *(f"write {tmp_path}/empty {'n' * 200}{number}" for number in range(40)))
    put(stick, "pkgs.img", b"found")

    assert content_of(stick.read_bytes()) == b"found"


def test_an_empty_file_has_no_bytes(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick")
    put(stick, "pkgs.img", b"")

    assert content_of(stick.read_bytes()) == b""


# What a hostile or broken medium brings; the numbers are those of the hostile inputs' table.

H095 = {
    "link": "symlink pkgs.img /etc/shadow",
    "long link": f"symlink pkgs.img /{'x' * 200}",
    "fifo": "mknod pkgs.img p",
    "character device": "mknod pkgs.img c 1 5",
    "block device": "mknod pkgs.img b 8 0",
    "directory": "mkdir pkgs.img",
}


@pytest.mark.parametrize("command", H095.values(), ids=H095.keys())
def test_h095_what_is_no_file_is_refused_and_not_followed(tmp_path: Path, command: str) -> None:
    stick = make(tmp_path / "stick")
    change(stick, command)

    refused = refusal(stick.read_bytes())

    assert (refused.code, str(refused)) == (Code.PATH, "pkgs.img is no regular file")


def test_h095_a_socket_is_refused(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick")
    put(stick, "pkgs.img", b"x")
    change(stick, "set_inode_field pkgs.img mode 0140644")

    assert refusal(stick.read_bytes()).code is Code.PATH


def test_h095_a_setuid_file_is_bytes_like_any_other(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick")
    put(stick, "pkgs.img", b"x")
    change(stick, "set_inode_field pkgs.img mode 0104755")

    assert content_of(stick.read_bytes()) == b"x"


@pytest.mark.parametrize("size", [1 << 44, (1 << 64) - 1])
def test_h093_h095_a_huge_file_costs_nothing(tmp_path: Path, size: int) -> None:
    stick = make(tmp_path / "stick", "-b", "4096")
    put(stick, "pkgs.img", CONTENT)
    change(stick, f"set_inode_field pkgs.img size {size}")
    data = stick.read_bytes()

    if size > 4096 << 32:
        assert refusal(data).code is Code.LAYOUT
    else:
        file = find(data).file
        assert file is not None
        *_, hole = find_extents(reading(data), len(data), file)
        assert (hole.offset, hole.start + hole.size) == (None, size)


@pytest.mark.parametrize(
    "features",
    ["encrypt", "casefold", "inline_data", "meta_bg,^resize_inode", "large_dir", "mmp", "ea_inode"],
)
def test_h093_features_that_are_not_known_are_refused_by_type(
    tmp_path: Path, features: str
) -> None:
    stick = make(tmp_path / "stick", "-O", features)

    refused = refusal(stick.read_bytes())

    assert refused.code is Code.FS_TYPE
    assert "are not known here" in str(refused)


@pytest.mark.parametrize("kind", ["ext2", "ext3"])
def test_older_file_systems_are_refused_by_type(tmp_path: Path, kind: str) -> None:
    refused = refusal(make(tmp_path / "stick", "-t", kind).read_bytes())

    assert (refused.code, "ext2 or ext3" in str(refused)) == (Code.FS_TYPE, True)


@pytest.mark.parametrize(
    "flag", [0x4, 0x800, 0x10000000], ids=["compressed", "encrypted", "inline"]
)
def test_h093_a_file_with_a_feature_that_the_file_system_does_not_claim(
    tmp_path: Path, flag: int
) -> None:
    stick = make(tmp_path / "stick")
    put(stick, "pkgs.img", b"x")
    change(stick, f"set_inode_field pkgs.img flags {0x80000 | flag:#x}")

    assert refusal(stick.read_bytes()).code is Code.FS_TYPE


def test_h093_a_journal_an_orphan_list_and_errors_panic_are_left_alone(tmp_path: Path) -> None:
    stick = make(tmp_path / "stick", "-e", "panic")
    put(stick, "pkgs.img", CONTENT)
    assert not find(stick.read_bytes()).unclean
    change(stick, "feature needs_recovery", "ssv last_orphan 12", "ssv state 2")

    data = stick.read_bytes()

    assert find(data).unclean
    assert content_of(data) == CONTENT
