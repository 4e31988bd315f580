"""The whole order of trust on real image files, each test one attack or accident."""

import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from extsloader.image.trailer import append_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import Manifest
from extsloader.model.reasons import Code
from extsloader.model.source import SourceKind
from extsloader.model.trust import Release
from extsloader.verify.pipeline import verify, verify_in_place
from extsloader.verify.store import Progress
from tests.fakes import images
from tests.fakes.images import names


def ignore(_done: int, _total: int) -> None:
    pass


def ask(path: Path, kind: SourceKind = SourceKind.FILE, **changes: object) -> Request:
    asked = Request(
        source=images.file_source(path, kind),
        machine=images.MACHINE,
        keys=str(path.parent / "keys"),
        store=images.store_in(path.parent),
        wall=1_800_000_000.0,
        reserve=0,
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


def refusal(path: Path, kind: SourceKind = SourceKind.FILE, **changes: object) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        verify(ask(path, kind, **changes), ignore)
    store = path.parent / "store"
    assert kind is SourceKind.STORED or not store.exists() or names(store) == []
    return caught.value.problem.code, caught.value.problem.message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    images.key_directory(tmp_path / "keys", 1)
    return tmp_path / "image"


@pytest.fixture
def good(path: Path) -> Manifest:
    return images.signed(path)


def test_a_good_image_ends_in_the_store(path: Path, good: Manifest) -> None:
    image, descriptor = verify(ask(path), ignore)
    assert image.manifest == good
    assert image.path == f"{path.parent}/store/{good.image.digest}.img"
    assert len(image.key_ids) == 1
    assert os.pread(descriptor, 1 << 20, 0) == path.read_bytes()
    os.close(descriptor)


@pytest.mark.usefixtures("good")
def test_what_is_in_the_store_proves_itself_again(path: Path) -> None:
    image, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    again, descriptor = verify(
        ask(Path(image.path), SourceKind.STORED, keys=ask(path).keys), ignore
    )
    assert again == image
    assert os.fstat(descriptor).st_ino == Path(image.path).stat().st_ino
    os.close(descriptor)


@pytest.mark.usefixtures("good")
def test_the_same_image_again_is_not_copied_again(path: Path) -> None:
    first, descriptor = verify(ask(path), ignore)
    inode = os.fstat(descriptor).st_ino
    os.close(descriptor)
    again, descriptor = verify(ask(path), ignore)
    assert (again, os.fstat(descriptor).st_ino) == (first, inode)
    os.close(descriptor)


def test_the_same_bytes_under_a_new_manifest_are_signed_anew_in_the_file_that_is_there(
    path: Path, good: Manifest
) -> None:
    first, descriptor = verify(ask(path), ignore)
    inode = os.fstat(descriptor).st_ino
    os.close(descriptor)
    newer = replace(good, sequence=2, version="a-longer-one")
    append_trailer(str(path), images.envelope(newer))

    image, descriptor = verify(ask(path), ignore)

    assert (image.manifest.sequence, os.fstat(descriptor).st_ino) == (2, inode)
    os.close(descriptor)
    stored = ask(Path(first.path), SourceKind.STORED, keys=ask(path).keys)
    image, descriptor = verify(stored, ignore)
    assert image.manifest == newer
    os.close(descriptor)


@pytest.mark.usefixtures("good")
def test_a_stored_file_that_rotted_or_has_a_wrong_name_is_refused(path: Path) -> None:
    image, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    stored, other = Path(image.path), Path(image.path).with_name("other.img")
    shutil.copy(stored, other)
    keys = ask(path).keys
    code, message = refusal(other, SourceKind.STORED, keys=keys)
    assert code is Code.DIGEST
    assert "expected as its name" in message
    stored.chmod(0o600)
    with stored.open("r+b") as file:
        file.seek(200_000)
        file.write(b"rot")
    assert refusal(stored, SourceKind.STORED, keys=keys)[0] is Code.DIGEST


def test_a_medium_larger_than_the_image_is_the_same(path: Path, good: Manifest) -> None:
    os.truncate(path, path.stat().st_size + (1 << 20))
    image, descriptor = verify(ask(path), ignore)
    assert image.manifest == good
    os.close(descriptor)


def test_garbage_of_any_size_is_no_squashfs(path: Path) -> None:
    for size in (0, 1, 95, 96, 4096, 1 << 20):
        path.write_bytes(os.urandom(size))
        assert refusal(path)[0] is Code.FS_TYPE


def test_an_unsigned_image_is_refused_with_where_the_trailer_belongs(path: Path) -> None:
    size = images.unsigned(path).size
    code, message = refusal(path)
    assert code is Code.ENVELOPE
    assert f"a signed trailer expected at byte {size}" in message


def test_a_plain_squashfs_is_unsigned_too(path: Path) -> None:
    path.write_bytes(images.squashfs())
    assert refusal(path)[0] is Code.ENVELOPE


def test_a_signature_by_a_stranger_is_refused(path: Path) -> None:
    images.signed(path, 2)
    assert refusal(path)[0] is Code.SIGNATURE


def test_two_signers_are_two_keys(path: Path, tmp_path: Path) -> None:
    keys = images.key_directory(tmp_path / "two", 1, 2, threshold=2)
    images.signed(path, 1)
    assert refusal(path, keys=keys)[0] is Code.THRESHOLD
    images.signed(path, 1, 1)
    assert refusal(path, keys=keys)[0] is Code.THRESHOLD
    images.signed(path, 1, 2)
    image, descriptor = verify(ask(path, keys=keys), ignore)
    assert len(image.key_ids) == 2
    os.close(descriptor)


@pytest.mark.usefixtures("good")
def test_unusable_keys_refuse_the_device_not_the_image(path: Path) -> None:
    assert refusal(path, keys=str(path.parent / "nowhere"))[0] is Code.KEYS


def test_every_truncation_has_a_name(path: Path, good: Manifest) -> None:
    whole, size = path.read_bytes(), good.image.size
    cuts = [*range(96, size, 20_000), size - 1, size, size + 1, size + 63, size + 64, size + 500]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        code = refusal(path)[0]
        assert code in (Code.ENVELOPE, Code.LAYOUT), cut


@pytest.mark.parametrize("offset", [100, 200_000, 303_104, 307_200 + 40])
@pytest.mark.usefixtures("good")
def test_one_changed_bit_of_the_image_is_noticed(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    assert refusal(path)[0] is Code.DIGEST


@pytest.mark.usefixtures("good")
def test_a_manifest_of_another_image_does_not_fit(path: Path) -> None:
    other = path.with_name("other")
    manifest = images.signed(other, size=400_000)
    append_trailer(str(path), images.envelope(manifest))
    assert refusal(path)[0] is Code.SIZE


def test_a_signer_who_got_the_hash_tree_wrong_is_told(path: Path) -> None:
    image = images.unsigned(path)
    wrong = replace(image, verity=replace(image.verity, root_hash="0" * 64))
    append_trailer(str(path), images.envelope(images.manifest(wrong)))
    assert refusal(path)[0] is Code.VERITY
    flat = replace(image, verity=replace(image.verity, root_hash=image.digest))
    append_trailer(str(path), images.envelope(images.manifest(flat)))
    assert refusal(path)[0] is Code.VERITY


def test_a_signer_who_damaged_the_tree_is_told(path: Path) -> None:
    image = images.unsigned(path)
    content = bytearray(path.read_bytes())
    content[image.verity.hash_offset + 4096] ^= 1
    path.write_bytes(content)
    wrong = replace(image, digest=sha256(content).hexdigest())  # type: ignore[arg-type]
    append_trailer(str(path), images.envelope(images.manifest(wrong)))
    assert refusal(path)[0] is Code.VERITY


def test_an_envelope_beside_the_image_is_as_good(path: Path) -> None:
    manifest = images.manifest(images.unsigned(path))
    sidecar = path.with_name("image.manifest.json")
    sidecar.write_bytes(images.envelope(manifest))
    image, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    stored = ask(Path(image.path), SourceKind.STORED, keys=ask(path).keys)
    again, descriptor = verify(stored, ignore)
    assert again.manifest == manifest, "in the store it has a trailer"
    os.close(descriptor)


def test_a_sidecar_is_a_bounded_regular_file(path: Path) -> None:
    images.unsigned(path)
    sidecar = path.with_name("image.manifest.json")
    sidecar.write_bytes(b"{" * (65537))
    assert refusal(path)[0] is Code.LIMIT
    sidecar.unlink()
    sidecar.symlink_to("/etc/passwd")
    code, message = refusal(path)
    assert (code, f"cannot read {sidecar}: " in message) == (Code.PATH, True)
    sidecar.unlink()
    sidecar.mkdir()
    assert refusal(path)[0] is Code.PATH
    sidecar.rmdir()
    os.mkfifo(sidecar)
    assert refusal(path)[0] in (Code.ENVELOPE, Code.IO, Code.PATH)


@pytest.mark.usefixtures("good")
def test_no_room_in_the_store_is_known_before_the_copy(path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(ImageRefusedError) as caught:
        verify(ask(path, reserve=1 << 60), lambda done, _: seen.append(done))
    assert caught.value.problem.code is Code.RESOURCE
    assert seen == []


@pytest.mark.usefixtures("good")
def test_a_file_that_changed_since_it_was_seen_is_gone(path: Path) -> None:
    asked = ask(path)
    path.write_bytes(path.read_bytes())
    with pytest.raises(ImageRefusedError) as caught:
        verify(asked, ignore)
    assert caught.value.problem.code is Code.GONE


@pytest.mark.usefixtures("good")
def test_no_descriptor_is_left_behind(path: Path) -> None:
    before = names("/proc/self/fd")
    refusal(path, keys="/nowhere")
    refusal(path, reserve=1 << 60)
    os.close(verify(ask(path), ignore)[1])
    assert names("/proc/self/fd") == before


def test_an_image_below_the_floor_is_refused_before_a_byte_of_it_is_read(path: Path) -> None:
    images.signed(path, sequence=4)
    content = bytearray(path.read_bytes())
    content[100_000] ^= 1  # nobody gets as far as to notice
    path.write_bytes(content)
    floor = Release(name="pkgs", sequence=5)
    assert refusal(path, floors=(floor,))[0] is Code.ROLLBACK
    assert refusal(path)[0] is Code.DIGEST, "without the floor it is read"


def test_a_stored_image_that_was_put_back_is_refused(path: Path) -> None:
    images.signed(path, sequence=4)
    image, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    asked = ask(Path(image.path), SourceKind.STORED, keys=ask(path).keys)
    newer = Release(name="pkgs", sequence=5, digest="f" * 64)
    with pytest.raises(ImageRefusedError, match="E_ROLLBACK"):
        verify(replace(asked, floors=(newer,)), ignore)
    os.close(verify(asked, ignore)[1])


def test_an_image_without_a_clock_and_one_that_expired_in_the_store(path: Path) -> None:
    images.signed(path, expires="2026-02-01T00:00:00Z")
    built = 1_767_225_600.0
    image, descriptor = verify(ask(path, wall=0.0, clock_floor=built), ignore)
    os.close(descriptor)
    late = built + 365 * 86400
    assert image.manifest.expires
    assert refusal_code(ask(path, wall=late)) is Code.EXPIRED
    stored = ask(Path(image.path), SourceKind.STORED, keys=ask(path).keys, wall=late)
    os.close(verify(stored, ignore)[1])


def refusal_code(asked: Request) -> Code:
    with pytest.raises(ImageRefusedError) as caught:
        verify(asked, ignore)
    return caught.value.problem.code


def in_place(path: Path, progress: Progress = ignore) -> Code | None:
    try:
        verify_in_place(ask(path), progress)
    except ImageRefusedError as refused:
        return refused.problem.code
    return None


@pytest.mark.usefixtures("good")
def test_a_size_that_cannot_be_is_known_before_a_byte_is_read(path: Path) -> None:
    other = images.signed(path.with_name("other"), size=400_000)
    append_trailer(str(path), images.envelope(other))
    seen: list[int] = []
    for check in (verify, verify_in_place):
        with pytest.raises(ImageRefusedError, match="E_SIZE"):
            check(ask(path), lambda done, _: seen.append(done))
    assert seen == []


def test_in_place_the_hash_tree_is_checked_as_well(path: Path) -> None:
    image = images.unsigned(path)
    wrong = replace(image, verity=replace(image.verity, root_hash="0" * 64))
    append_trailer(str(path), images.envelope(images.manifest(wrong)))
    assert in_place(path) is Code.VERITY
    append_trailer(str(path), images.envelope(images.manifest(image)))
    assert in_place(path) is None


@pytest.mark.usefixtures("good")
def test_what_changes_while_it_is_hashed_is_gone(path: Path) -> None:
    def touch(target: Path) -> Progress:
        return lambda _done, _total: os.truncate(target, target.stat().st_size + 1)

    image, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    stored = ask(Path(image.path), SourceKind.STORED, keys=ask(path).keys)
    Path(image.path).chmod(0o600)
    stored = replace(stored, source=images.file_source(Path(image.path), SourceKind.STORED))
    with pytest.raises(ImageRefusedError, match="E_GONE"):
        verify(stored, touch(Path(image.path)))
    assert in_place(path, touch(path)) is Code.GONE


def test_in_the_store_nothing_beside_the_image_counts(path: Path) -> None:
    manifest = images.manifest(images.unsigned(path))
    path.with_name("image.manifest.json").write_bytes(images.envelope(manifest))
    assert refusal(path, SourceKind.STORED)[0] is Code.ENVELOPE


def test_bytes_in_the_store_are_never_signed_back_to_a_lower_sequence(path: Path) -> None:
    """A helper that was asked before the floor rose, also one of an agent that was killed."""
    wanted = images.signed(path, sequence=1)
    asked = ask(path)
    append_trailer(str(path), images.envelope(replace(wanted, sequence=3)))
    higher, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    kept = Path(higher.path).read_bytes()
    append_trailer(str(path), images.envelope(wanted))
    lower, descriptor = verify(replace(asked, source=images.file_source(path)), ignore)
    os.close(descriptor)
    assert (higher.manifest.sequence, lower.manifest.sequence) == (3, 1)
    assert Path(lower.path).read_bytes() == kept


def test_bytes_in_the_store_are_signed_anew_when_their_keys_count_no_more(path: Path) -> None:
    wanted = images.signed(path, sequence=3)
    _, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    shutil.rmtree(path.parent / "keys")
    images.key_directory(path.parent / "keys", 2)
    append_trailer(str(path), images.envelope(replace(wanted, sequence=1), 2))
    found, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    assert Path(found.path).read_bytes() == path.read_bytes()
