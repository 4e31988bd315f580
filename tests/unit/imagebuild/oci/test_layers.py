import gzip
import hashlib
import os
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.imagebuild.oci import layers, members
from extsloader.imagebuild.oci.layers import flatten, unpack_layers
from extsloader.imagebuild.oci.layout import Blob, Layer
from extsloader.imagebuild.tree import Kind, Tree, read_content
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from tests.fakes.layers import directory, file, hard_link, link, member, pack, raw_header


def flat(folder: Path, *archives: bytes) -> Tree:
    paths = []
    for number, archive in enumerate(archives):
        path = folder / f"{number}.tar"
        path.write_bytes(archive)
        paths.append(path)
    return flatten(paths)


def contents(tree: Tree) -> dict[str, bytes]:
    return {path: read_content(node) for path, node in tree.items() if node.kind is Kind.FILE}


def test_an_upper_layer_adds_and_replaces(tmp_path: Path) -> None:
    tree = flat(tmp_path, pack(file("a", b"old"), file("b")), pack(file("a", b"new"), file("c/d")))

    assert contents(tree) == {"a": b"new", "b": b"x", "c/d": b"x"}


def test_a_whiteout_removes_what_lower_layers_have_and_nothing_of_its_own(tmp_path: Path) -> None:
    lower = pack(file("a"), file("dir/b"), file("dir/c"))
    upper = pack(file("dir/new"), file(".wh.a"), file(".wh.dir"))

    assert contents(flat(tmp_path, lower, upper)) == {"dir/new": b"x"}


def test_an_opaque_directory_hides_what_was_in_it(tmp_path: Path) -> None:
    lower = pack(directory("dir"), file("dir/b"), file("dirt"))
    upper = pack(file("dir/new"), file("dir/.wh..wh..opq"))

    tree = flat(tmp_path, lower, upper)

    assert contents(tree) == {"dir/new": b"x", "dirt": b"x"}
    assert tree["dir"].kind is Kind.DIRECTORY


def test_a_file_takes_the_place_of_a_directory_and_the_reverse(tmp_path: Path) -> None:
    lower = pack(file("x/inside"), file("y"))
    upper = pack(file("x"), directory("y"), file("y/inside"))

    assert contents(flat(tmp_path, pack(directory("x")), lower, upper)) == {
        "x": b"x",
        "y/inside": b"x",
    }


def test_a_hard_link_is_the_same_file_even_of_a_lower_layer(tmp_path: Path) -> None:
    tree = flat(tmp_path, pack(file("a", b"1")), pack(hard_link("b", "a"), file("a", b"2")))

    assert contents(tree) == {"a": b"2", "b": b"1"}
    same = flat(tmp_path, pack(file("a"), hard_link("b", "a")))
    assert same["a"] is same["b"]


def test_modes_owners_and_attributes_are_kept(tmp_path: Path) -> None:
    info, content = file("ping", mode=0o4755, uid=7, gid=8, mtime=1234)
    info.pax_headers = {"SCHILY.xattr.security.capability": "\x01"}

    node = flat(tmp_path, pack((info, content)))["ping"]

    assert (node.mode, node.uid, node.gid, node.mtime) == (0o4755, 7, 8, 1234)
    assert node.xattrs == {"security.capability": "\x01"}


def test_absolute_names_are_meant_from_the_root(tmp_path: Path) -> None:
    assert set(flat(tmp_path, pack(file("/etc/passwd")))) == {"etc", "etc/passwd"}


def test_a_directory_may_come_again_with_another_mode(tmp_path: Path) -> None:
    tree = flat(tmp_path, pack(file("a/b"), (member("a", type=tarfile.DIRTYPE, mode=0o700), b"")))

    assert tree["a"].mode == 0o700
    assert set(tree) == {"a", "a/b"}


def odd(name: str = "a", **pax: str) -> bytes:
    """One file with more in its extended header."""
    return pack(member_with(name, pax))


def member_with(name: str, pax: dict[str, str]) -> tuple[tarfile.TarInfo, bytes]:
    info, content = file(name)
    info.pax_headers = pax
    return info, content


END = bytes(1024)
NEGATIVE = b"\xff" * 11 + b"\x00"  # -256 in base 256
LARGE = b"\x80" + bytes(6) + (2 << 30).to_bytes(5)
CHAIN = (raw_header("x", b"x", b"%011o\0" % 512) + b"12 comment=x\n".ljust(512, b"\0")) * 2000
CUT_SPARSE = raw_header("a", b"S", extended=True)
"""GNU tar's old sparse files say at byte 482 that the map goes on in another block."""

HOSTILE = {
    "file twice": (Code.PATH, pack(file("a"), file("a"))),
    "link, then file": (Code.PATH, pack(link("a", "b"), file("a"))),
    "directory, then link": (Code.PATH, pack(file("a/b"), link("a", "/etc"))),
    "whiteout of everything": (Code.PATH, pack(file(".wh."))),
    "whiteout that climbs": (Code.PATH, pack(file("a/.wh..."))),
    "null byte": (Code.PATH, odd(path="etc/passwd\0x")),
    "link to nowhere": (Code.PATH, pack(link("a", ""))),
    "time that is no number": (Code.LIMIT, odd(mtime="nan")),
    "endless time": (Code.LIMIT, odd(mtime="inf")),
    "negative owner": (Code.LIMIT, odd(uid="-1")),
    "large group": (Code.LIMIT, odd(gid="4294967295")),
    "negative size": (Code.SIZE, raw_header("a", b"0", NEGATIVE) + END),
    "negative size by extension": (Code.SIZE, odd(size="-1024")),
    "negative extended header": (Code.LAYOUT, raw_header("a", b"x", NEGATIVE) + END),
    "negative long name": (Code.LAYOUT, raw_header("a", b"L", NEGATIVE) + END),
    "large extended header": (Code.LAYOUT, raw_header("a", b"x", LARGE) + END),
    "chain of extended headers": (Code.LAYOUT, CHAIN + pack(file("a"))),
    "damaged header": (Code.LAYOUT, pack(file("a"))[:1024] + b"x" * 512 + pack(file("b"))),
    "cut header": (Code.LAYOUT, pack(file("a"))[:1024] + pack(file("b"))[:300]),
    "sparse file": (Code.BUNDLE, raw_header("a", b"S") + END),
    "cut sparse file": (Code.LAYOUT, CUT_SPARSE),
    "deep path": (Code.LIMIT, pack(file("/".join("d" * 2049)))),
    "long target": (Code.LIMIT, pack(link("a", "b" * 4096))),
    "climbs": (Code.PATH, pack(file("../etc/passwd"))),
    "climbs inside": (Code.PATH, pack(file("a/../../etc/passwd"))),
    "below a link": (Code.PATH, pack(link("a", "/etc"), file("a/passwd"))),
    "below a file": (Code.PATH, pack(file("a"), file("a/b"))),
    "hard link to nothing": (Code.PATH, pack(hard_link("a", "b"))),
    "hard link out": (Code.PATH, pack(hard_link("a", "../../etc/shadow"))),
    "hard link to a link": (Code.PATH, pack(link("a", "/etc/shadow"), hard_link("b", "a"))),
    "character device": (Code.BUNDLE, pack((member("a", type=tarfile.CHRTYPE), b""))),
    "block device": (Code.BUNDLE, pack((member("a", type=tarfile.BLKTYPE), b""))),
    "unknown kind": (Code.BUNDLE, pack((member("a", type=b"Z"), b""))),
    "no tar file": (Code.LAYOUT, b"nonsense" * 100),
    "cut off": (Code.SIZE, pack(file("a", b"x" * 5000))[:1024]),
}


@pytest.mark.parametrize(("code", "archive"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_layer_is_refused(tmp_path: Path, code: Code, archive: bytes) -> None:
    with pytest.raises(ImageRefusedError) as caught:
        flat(tmp_path, archive)

    assert caught.value.problem.code is code


def test_a_long_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(raw_header("a", b"x", LARGE))
    os.truncate(path, 3 << 30)  # with a hole: it takes no space

    tracemalloc.start()
    with pytest.raises(ImageRefusedError, match="too long a header"):
        flatten([path])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1 << 20


def test_all_headers_of_a_layer_together_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pack(file("a"), file("b"))
    monkeypatch.setattr(members, "MAX_HEADERS", 4 * 512)  # two, the end, and the bytes between

    assert len(flat(tmp_path, plain)) == 2
    with pytest.raises(ImageRefusedError, match="too long a header"):
        flat(tmp_path, odd(path="b" * 200), plain)


def test_a_link_below_which_a_later_layer_writes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageRefusedError, match="lies below /a, which is a link"):
        flat(tmp_path, pack(link("a", "/etc")), pack(file("a/passwd")))


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_MEMBERS", 2)

    assert len(flat(tmp_path, pack(file("a")), pack(file("b")))) == 2
    for upper in (pack(file("c")), pack(file("a"))):  # what replaces another counts, too
        with pytest.raises(ImageRefusedError, match="too many files for one image"):
            flat(tmp_path, pack(file("a"), file("b")), upper)
    with pytest.raises(ImageRefusedError, match="too many files for one image"):
        flat(tmp_path, pack(file("parents/count/too")))


PATHS = st.sampled_from(["a", "a/b", "a/b/c", "d", "d/e", "f"])


@given(uppers=st.lists(st.dictionaries(PATHS, st.booleans(), max_size=5), max_size=4))
def test_files_and_whiteouts_do_what_a_plain_model_does(
    tmp_path_factory: pytest.TempPathFactory, uppers: list[dict[str, bool]]
) -> None:
    """True is a file, False a whiteout; what is below a whiteout or a file of the layer is out."""
    model: dict[str, int] = {}
    archives = []
    for number, wanted in enumerate(uppers):
        files = {
            p for p, there in wanted.items()
            if there and not any(o.startswith(f"{p}/") or p.startswith(f"{o}/") for o in wanted)
        }  # fmt: skip
        gone = {p for p, there in wanted.items() if not there}
        model = {
            p: n for p, n in model.items()
            if not any(p == g or p.startswith(f"{g}/") for g in gone | files)
        }  # fmt: skip
        files = {p for p in files if not any(p.startswith(f"{m}/") for m in model)}
        model |= dict.fromkeys(files, number)
        archives.append(
            pack(
                *(file(p, str(number).encode()) for p in sorted(files)),
                *(file(f"{p.rpartition('/')[0]}/.wh.{p.rpartition('/')[2]}") for p in sorted(gone)),
            )
        )

    found = contents(flat(tmp_path_factory.mktemp("layers"), *archives))

    assert found == {path: str(number).encode() for path, number in model.items()}


def put_blob(layout: Path, raw: bytes, kind: str, plain: bytes) -> Layer:
    digest = hashlib.sha256(raw).hexdigest()
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs/sha256" / digest).write_bytes(raw)
    media_type = f"application/vnd.oci.image.layer.v1.{kind}"
    blob = Blob(digest=f"sha256:{digest}", size=len(raw), media_type=media_type)
    return Layer(blob=blob, diff_id=f"sha256:{hashlib.sha256(plain).hexdigest()}")


PLAIN = pack(file("a", b"content" * 1000))


@pytest.mark.parametrize("kind", ["tar", "tar+gzip", "tar+zstd"])
def test_layers_are_unpacked_into_the_cache_once(tmp_path: Path, kind: str) -> None:
    packed = {
        "tar": PLAIN,
        "tar+gzip": gzip.compress(PLAIN),
        "tar+zstd": subprocess.run(["zstd"], input=PLAIN, check=True, capture_output=True).stdout,
    }[kind]
    layer = put_blob(tmp_path, packed, kind, PLAIN)

    (tar,) = unpack_layers(tmp_path, [layer], tmp_path / "cache")

    assert tar.read_bytes() == PLAIN
    (tmp_path / "blobs/sha256" / layer.blob.digest[7:]).unlink()
    assert unpack_layers(tmp_path, [layer], tmp_path / "cache") == [tar]


def test_all_layers_together_may_have_so_many_bytes(tmp_path: Path) -> None:
    layer = put_blob(tmp_path, PLAIN, "tar", PLAIN)
    one, cache = len(PLAIN), tmp_path / "cache"

    assert len(unpack_layers(tmp_path, [layer] * 2, cache, limit=2 * one)) == 2
    with pytest.raises(ImageRefusedError, match="E_LIMIT"):
        unpack_layers(tmp_path, [layer] * 3, cache, limit=3 * one - 1)


GZIP = gzip.compress(PLAIN)
SPOILED = {
    "another blob": (Code.DIGEST, "tar+gzip", GZIP[:-1] + b"?", PLAIN),
    "another content": (Code.DIGEST, "tar+gzip", GZIP, b"other"),
    "shorter": (Code.SIZE, "tar+gzip", GZIP[:-1], PLAIN),
    "no gzip": (Code.LAYOUT, "tar+gzip", b"x" * 500, PLAIN),
    "unknown": (Code.LAYOUT, "squashfs", GZIP, PLAIN),
    "a bomb": (Code.LIMIT, "tar+gzip", gzip.compress(bytes(2 << 20)), PLAIN),
}


@pytest.mark.parametrize(("code", "kind", "raw", "plain"), SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_layer_leaves_nothing_in_the_cache(
    tmp_path: Path, code: Code, kind: str, raw: bytes, plain: bytes
) -> None:
    layer = put_blob(tmp_path, raw, kind, plain)
    if code is Code.SIZE or raw.endswith(b"?"):
        path = tmp_path / "blobs/sha256" / layer.blob.digest[7:]
        path.write_bytes(GZIP if raw.endswith(b"?") else raw[:-1])

    with pytest.raises(ImageRefusedError) as caught:
        unpack_layers(tmp_path, [layer], tmp_path / "cache", limit=1 << 20)

    assert caught.value.problem.code is code
    assert list((tmp_path / "cache").iterdir()) == []
