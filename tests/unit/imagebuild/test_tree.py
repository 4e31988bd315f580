import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.tree import (
    DIRECTORY,
    Extent,
    Kind,
    Node,
    Tree,
    check_parents,
    copy,
    merge_usr,
    prune,
    put_over,
    read_content,
    read_directory,
    read_tar,
    write_tar,
)
from extsloader.model.errors import ImageRefusedError

SH = Node(kind=Kind.FILE, content=b"#!")
EMPTY = Node(kind=Kind.FILE)


def packed(tree: Tree) -> bytes:
    out = BytesIO()
    write_tar(tree, out)
    return out.getvalue()


def unpacked(tar: bytes, path: Path) -> Tree:
    path.write_bytes(tar)
    return read_tar(path)


def with_content(tree: Tree) -> Tree:
    return {path: replace(node, content=read_content(node)) for path, node in tree.items()}


def test_a_tree_reads_back_as_it_was_written(tmp_path: Path) -> None:
    tree = {
        "usr": DIRECTORY,
        "usr/sh": SH,
        "usr/null": Node(kind=Kind.CHARACTER, mode=0o666, device=(1, 3)),
        "var": Node(kind=Kind.DIRECTORY, mode=0o1777, uid=7, gid=8),
        "x": Node(kind=Kind.LINK, mode=0o777, target="usr/sh"),
    }

    assert with_content(unpacked(packed(tree), tmp_path / "x.tar")) == tree


def test_contents_stay_in_their_file_until_they_are_written(tmp_path: Path) -> None:
    tree = unpacked(packed({"usr/sh": SH, "usr/empty": EMPTY}), tmp_path / "x.tar")

    assert isinstance(tree["usr/sh"].content, Extent)
    assert packed(tree) == packed({"usr/sh": SH, "usr/empty": EMPTY})


def test_extended_attributes_are_kept(tmp_path: Path) -> None:
    tree = {"ping": replace(SH, xattrs={"security.capability": "\x01\udc80\x02"})}

    assert with_content(unpacked(packed(tree), tmp_path / "x.tar")) == tree


def test_one_node_at_two_paths_is_one_file_with_two_names(tmp_path: Path) -> None:
    tar = packed({"bin/b": SH, "bin/a": SH, "bin/c": replace(SH)})

    tree = unpacked(tar, tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as file:
        links = {member.name: member.linkname for member in file if member.islnk()}

    assert links == {"bin/b": "bin/a"}
    assert tree["bin/b"] is tree["bin/a"] is not tree["bin/c"]


def test_the_same_tree_gives_the_same_bytes_in_whatever_order_it_was_made() -> None:
    tree = {"b": SH, "a": DIRECTORY}

    assert packed(tree) == packed(dict(reversed(tree.items())))


def test_missing_parents_are_made(tmp_path: Path) -> None:
    read_back = unpacked(packed({"a/b/c": SH}), tmp_path / "x.tar")

    assert list(read_back) == ["a", "a/b", "a/b/c"]
    assert read_back["a"] == DIRECTORY


def test_a_hard_link_becomes_the_same_file(tmp_path: Path) -> None:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        first = tarfile.TarInfo("./bin/perl")
        first.size = 2
        tar.addfile(first, BytesIO(b"#!"))
        second = tarfile.TarInfo("./bin/perl5")
        second.type, second.linkname = tarfile.LNKTYPE, "./bin/perl"
        tar.addfile(second)

    tree = unpacked(out.getvalue(), tmp_path / "x.tar")

    assert tree["bin/perl5"] is tree["bin/perl"]
    assert read_content(tree["bin/perl5"]) == b"#!"


def test_a_path_that_climbs_is_refused(tmp_path: Path) -> None:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("usr/../../etc/passwd"))

    with pytest.raises(ImageRefusedError, match=r"E_PATH: cannot use evil\.deb"):
        unpacked(out.getvalue(), tmp_path / "evil.deb")


def test_bin_and_lib_move_below_usr_and_links_stay_in_their_place() -> None:
    merged = merge_usr({"bin": DIRECTORY, "bin/sh": SH, "usr/bin/awk": SH, "etc/passwd": SH})

    assert merged["usr/bin/sh"] == merged["usr/bin/awk"] == merged["etc/passwd"] == SH
    assert merged["bin"] == Node(kind=Kind.LINK, mode=0o777, target="usr/bin")
    assert merged["usr/bin"] == DIRECTORY
    assert "bin/sh" not in merged


def test_pruning_takes_whole_directories_but_what_is_to_be_kept() -> None:
    tree = {
        "usr/share/doc": DIRECTORY,
        "usr/share/doc/x/copyright": SH,
        "usr/share/doc/x/README": SH,
        "usr/lib/x86_64/gconv/UTF.so": SH,
        "usr/lib/x86_64/libc.so": SH,
    }

    kept = prune(tree, ["usr/share/doc", "usr/lib/*/gconv"], keep=["usr/share/doc/*/copyright"])

    assert list(kept) == ["usr/share/doc/x/copyright", "usr/lib/x86_64/libc.so"]


def test_a_directory_is_read_with_the_modes_that_git_keeps(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!")
    (tmp_path / "run").chmod(0o711)
    (tmp_path / "conf").write_text("")
    (tmp_path / "conf").chmod(0o600)
    (tmp_path / "link").symlink_to("run")

    tree = read_directory(tmp_path)

    assert (tree["run"].mode, tree["conf"].mode) == (0o755, 0o644)
    assert (tree["link"].kind, tree["link"].target) == (Kind.LINK, "run")


def test_a_tar_inside_of_a_file_is_read_up_to_its_end(tmp_path: Path) -> None:
    content = packed({"a": Node(kind=Kind.FILE, content=b"inner")})
    path = tmp_path / "outer"
    path.write_bytes(b"x" * 100 + content + b"behind")

    tree = read_tar(path, Extent(path, 100, len(content)))

    assert read_content(tree["a"]) == b"inner"


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    damaged = bytearray(packed({name: Node(kind=Kind.FILE) for name in "abc"}))
    damaged[tarfile.BLOCKSIZE + 10] ^= 1
    (tmp_path / "damaged.tar").write_bytes(damaged)

    with pytest.raises(tarfile.ReadError):
        read_tar(tmp_path / "damaged.tar")


def test_a_tree_over_another_never_leads_through_its_links() -> None:
    link, file = Node(kind=Kind.LINK, target="/etc"), Node(kind=Kind.FILE)
    tree = {"a": link, "b/c": file, "d": file}

    put_over(tree, {"a/passwd": file, "b/e": file, "d": link})

    assert tree == {"a": DIRECTORY, "a/passwd": file, "b/c": file, "b/e": file, "d": link}
    check_parents(tree)
    with pytest.raises(ImageRefusedError, match="got a link in one of them"):
        check_parents(tree | {"b": link})


def test_a_copy_shares_hard_links_with_itself_only() -> None:
    node = Node(kind=Kind.FILE)

    again = copy({"a": node, "b": node})

    assert again["a"] is again["b"]
    assert again["a"] is not node
