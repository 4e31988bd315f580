"""The single checks and their order, on bytes and facts alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from extsloader.image.envelope import parse_envelope
from extsloader.image.schema import encode_manifest
from extsloader.image.signing import sign
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import Compatible, Manifest
from extsloader.model.reasons import Code
from extsloader.model.source import SourceKind
from extsloader.model.trust import Release
from extsloader.verify.keys import load_keys
from extsloader.verify.pinned import wrap
from extsloader.verify.trust import (
    accept,
    check_compatible,
    check_floor,
    check_graph,
    check_signatures,
    check_time,
)
from tests.fakes import images

DAY = 86400.0
ISSUED = 1767225600.0  # 2026-01-01T00:00:00Z


@pytest.fixture
def good(tmp_path: Path) -> Manifest:
    return images.manifest(images.unsigned(tmp_path / "image"))


def refusal(check: Callable[..., object], *arguments: object) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        check(*arguments)
    return caught.value.problem.code, caught.value.problem.message


def request(tmp_path: Path, kind: SourceKind = SourceKind.FILE, wall: float = ISSUED) -> Request:
    keys = tmp_path / "keys"
    if not keys.exists():
        images.key_directory(keys, 1)
    source = images.file_source(tmp_path / "image", kind)
    return Request(source=source, machine=images.MACHINE, keys=str(keys), wall=wall)


def test_a_good_envelope_is_accepted_with_the_keys_that_signed(
    tmp_path: Path, good: Manifest
) -> None:
    found = accept(images.envelope(good), request(tmp_path))
    assert found.manifest == good
    assert len(found.key_ids) == 1
    assert not found.retired


@pytest.mark.usefixtures("good")
def test_nothing_is_read_before_the_signature_holds(tmp_path: Path) -> None:
    nonsense = sign(b"\xff", [images.private_key(2)])
    assert refusal(accept, nonsense, request(tmp_path))[0] is Code.SIGNATURE
    nonsense = sign(b"", [images.private_key(1)])
    assert refusal(accept, nonsense, request(tmp_path))[0] is Code.SCHEMA


def test_the_first_reason_in_the_documented_order_is_given(tmp_path: Path, good: Manifest) -> None:
    other = replace(good.compatible, arch="arm64")
    late = replace(good, expires="2026-01-02T00:00:00Z")
    cyclic = images.manifest(good.image, {"a": "b", "b": "a"})
    asked = request(tmp_path, wall=ISSUED + 2 * DAY)
    worst = replace(late, services=cyclic.services, compatible=other)
    assert refusal(accept, images.envelope(worst), asked)[0] is Code.INCOMPATIBLE
    worse = replace(worst, compatible=good.compatible)
    assert refusal(accept, images.envelope(worse), asked)[0] is Code.EXPIRED
    assert refusal(accept, images.envelope(cyclic), asked)[0] is Code.DAG


def test_who_expired_in_the_store_may_go_on(tmp_path: Path, good: Manifest) -> None:
    late = images.envelope(replace(good, expires="2026-01-02T00:00:00Z"))
    asked = request(tmp_path, SourceKind.STORED, wall=ISSUED + 2 * DAY)
    assert accept(late, asked).manifest.expires
    assert refusal(accept, late, replace(asked, source=request(tmp_path).source))[0] is Code.EXPIRED


def test_signers_are_counted_by_key(tmp_path: Path, good: Manifest) -> None:
    ring = load_keys(images.key_directory(tmp_path / "keys", 1, 2, 3, threshold=2))
    both = parse_envelope(images.envelope(good, 1, 3))
    assert len(check_signatures(both, ring)[0]) == 2
    one = parse_envelope(images.envelope(good, 1))
    assert refusal(check_signatures, one, ring) == (
        Code.THRESHOLD,
        "cannot accept the manifest: 2 distinct accepted keys expected, 1 signed",
    )
    twice = replace(one, signatures=one.signatures * 2)
    assert refusal(check_signatures, twice, ring)[0] is Code.THRESHOLD
    stranger = parse_envelope(images.envelope(good, 4, 5))
    assert refusal(check_signatures, stranger, ring)[0] is Code.SIGNATURE


def test_what_a_retired_key_has_signed_runs_on_and_nothing_new_comes_in(
    tmp_path: Path, good: Manifest
) -> None:
    images.key_directory(tmp_path / "keys", 1, 2, retired=(1,))
    old = images.envelope(good, 1)
    code, message = refusal(accept, old, request(tmp_path))
    assert (code, "a retired key signed" in message) == (Code.SIGNATURE, True)
    assert accept(old, request(tmp_path, SourceKind.STORED)).retired
    assert not accept(images.envelope(good, 2), request(tmp_path, SourceKind.STORED)).retired


def test_what_a_revoked_key_has_signed_is_refused_everywhere(
    tmp_path: Path, good: Manifest
) -> None:
    images.key_directory(tmp_path / "keys", 1, 2, revoked=(1,))
    stolen = images.envelope(good, 1)
    for kind in (SourceKind.FILE, SourceKind.STORED):
        code, message = refusal(accept, stolen, request(tmp_path, kind))
        assert (code, "a revoked key signed" in message) == (Code.SIGNATURE, True)


def test_a_retired_key_completes_a_threshold_in_the_store_only(
    tmp_path: Path, good: Manifest
) -> None:
    images.key_directory(tmp_path / "keys", 1, 2, 3, threshold=2, retired=(1,))
    both = images.envelope(good, 1, 2)
    assert refusal(accept, both, request(tmp_path))[0] is Code.THRESHOLD
    assert accept(both, request(tmp_path, SourceKind.STORED)).retired


def test_keys_that_are_older_than_keys_seen_before_bring_nothing_in(
    tmp_path: Path, good: Manifest
) -> None:
    images.key_directory(tmp_path / "keys", 1, epoch=2)
    new, stored = (
        replace(request(tmp_path, kind), key_epoch_seen=3)
        for kind in (SourceKind.FILE, SourceKind.STORED)
    )
    code, message = refusal(accept, images.envelope(good), new)
    assert (code, "epoch 3 or later expected, 2 got" in message) == (Code.KEYS, True)
    assert accept(images.envelope(good), stored).key_epoch == 2
    assert accept(images.envelope(good), replace(new, key_epoch_seen=2)).key_ids


def test_a_pinned_manifest_needs_no_signature_and_no_key(tmp_path: Path, good: Manifest) -> None:
    keys = Path(images.key_directory(tmp_path / "keys"))
    pinned = encode_manifest(good)
    (keys / "pinned.json").write_bytes(pinned)
    found = accept(wrap(pinned), request(tmp_path))
    assert (found.manifest, found.key_ids) == (good, ())
    other = encode_manifest(replace(good, sequence=2))
    assert refusal(accept, wrap(other), request(tmp_path))[0] is Code.THRESHOLD
    signed = images.envelope(replace(good, sequence=2))
    assert refusal(accept, signed, request(tmp_path))[0] is Code.SIGNATURE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"arch": "arm64"}, "it is for arm64, this device is amd64"),
        ({"hypervisors": ("xen", "k")}, "it is for hypervisor xen or k, this device has kvm"),
        ({"core_min": "14.6"}, "core versions 14.6 to any, this device has 14.5.0"),
        ({"core_max": "14.4"}, "core versions any to 14.4, this device has 14.5.0"),
        ({"device_ids": ("device-2",)}, "this device (device-1) is not one of the 1"),
    ],
)
def test_an_image_for_another_device_is_refused(change: dict[str, object], reason: str) -> None:
    wanted = replace(Compatible(arch="amd64", hypervisors=("kvm",)), **change)  # type: ignore[arg-type]
    code, message = refusal(check_compatible, wanted, images.MACHINE)
    assert code is Code.INCOMPATIBLE
    assert reason in message


@pytest.mark.parametrize(
    ("own", "low", "high", "fits"),
    [
        ("14.5.0", "", "", True),
        ("", "", "", True),
        ("", "1", "", False),
        ("unknown", "", "99", False),
        ("14.10.0", "14.9", "", True),
        ("14.5.0-kvm-amd64", "14.5", "14.5", True),
        ("14.5.9", "", "14.5", True),
        ("14.6", "", "14.5", False),
        ("14", "14.0", "", False),
        ("0.0.0-main-1a2b3c", "0", "", True),
    ],
)
def test_versions_are_compared_as_numbers(own: str, low: str, high: str, fits: bool) -> None:
    wanted = Compatible(arch="amd64", hypervisors=("kvm",), core_min=low, core_max=high)
    machine = replace(images.MACHINE, core_version=own)
    if fits:
        check_compatible(wanted, machine)
    else:
        assert refusal(check_compatible, wanted, machine)[0] is Code.INCOMPATIBLE


def test_expiry_and_future_are_judged_by_a_sure_clock(good: Manifest) -> None:
    dated = replace(good, expires="2026-02-01T00:00:00Z")
    check_time(dated, ISSUED, 0)
    check_time(dated, ISSUED + 31 * DAY, 0)
    code, message = refusal(check_time, dated, ISSUED + 32 * DAY, 0)
    assert code is Code.EXPIRED
    assert "it expired at 2026-02-01T00:00:00Z, now is 2026-02-02T00:00:00Z" in message
    check_time(good, ISSUED - DAY, 0)
    assert refusal(check_time, good, ISSUED - DAY - 1, 0)[0] is Code.CLOCK


def test_an_unsure_clock_refuses_nothing(good: Manifest) -> None:
    dated = replace(good, expires="2026-02-01T00:00:00Z")
    for wall in (0.0, ISSUED - 400 * DAY):
        check_time(dated, wall, ISSUED - DAY)
    # Expired before the floor is expired for certain: it is at least that late.
    assert refusal(check_time, dated, 0.0, ISSUED + 60 * DAY)[0] is Code.EXPIRED


def test_a_cycle_is_shown_and_a_chain_is_not(good: Manifest) -> None:
    check_graph(good)
    cyclic = images.manifest(good.image, {"a": "b", "b": "c", "c": "a", "d": ""})
    assert refusal(check_graph, cyclic) == (
        Code.DAG,
        "cannot order the services: a -> b -> c -> a is a cycle",
    )
    alone = images.manifest(good.image, {"a": "a"})
    assert "a -> a is a cycle" in refusal(check_graph, alone)[1]


def at_floor(asked: Request, sequence: int, digest: str = "", **changes: object) -> Request:
    release = Release(name="pkgs", sequence=sequence, digest=digest)
    return replace(asked, floors=(release,), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sequence", "floor", "code"),
    [(4, 5, Code.ROLLBACK), (5, 5, None), (6, 5, None), (5 + (1 << 20) + 1, 5, Code.ROLLBACK)],
)
def test_a_sequence_below_the_floor_or_far_above_it_is_refused(
    tmp_path: Path, good: Manifest, sequence: int, floor: int, code: Code | None
) -> None:
    wanted = replace(good, sequence=sequence)
    asked = at_floor(request(tmp_path), floor)
    if code is None:
        check_floor(wanted, asked, 0)
    else:
        assert refusal(check_floor, wanted, asked, 0)[0] is code


def test_a_twin_is_refused_with_both_digests(tmp_path: Path, good: Manifest) -> None:
    first = Release(name="pkgs", sequence=1, digest="f" * 64)
    for asked in (
        replace(request(tmp_path), accepted=(first,)),
        replace(request(tmp_path), floors=(first,)),
    ):
        code, message = refusal(check_floor, good, asked, 0)
        assert code is Code.EQUIVOCATION
        assert "f" * 64 in message
        assert good.image.digest in message


def test_a_stored_image_below_the_floor_is_refused_like_any_other(
    tmp_path: Path, good: Manifest
) -> None:
    asked = at_floor(request(tmp_path, SourceKind.STORED), 2)
    assert refusal(accept, images.envelope(good), asked)[0] is Code.ROLLBACK


def test_only_a_newer_key_set_lowers_a_floor_and_only_to_the_baked_one(
    tmp_path: Path, good: Manifest
) -> None:
    asked = at_floor(request(tmp_path), 2**60, "f" * 64, key_epoch_seen=3)
    for baked, epoch, sequence, code in (
        ((), 4, 1, Code.ROLLBACK),
        ((Release(name="pkgs", sequence=1),), 3, 1, Code.ROLLBACK),
        ((Release(name="pkgs", sequence=1),), 4, 1, None),
        ((Release(name="pkgs", sequence=2),), 4, 1, Code.ROLLBACK),
    ):
        held = replace(asked, baked=baked)
        wanted = replace(good, sequence=sequence)
        if code is None:
            check_floor(wanted, held, epoch)
        else:
            assert refusal(check_floor, wanted, held, epoch)[0] is code


def test_the_floor_is_judged_after_device_and_time_and_before_the_graph(
    tmp_path: Path, good: Manifest
) -> None:
    bad = images.manifest(good.image, {"a": "a"})
    asked = at_floor(request(tmp_path), 2)
    assert refusal(accept, images.envelope(bad), asked)[0] is Code.ROLLBACK
    early = replace(asked, wall=ISSUED - 2 * DAY)
    assert refusal(accept, images.envelope(bad), early)[0] is Code.CLOCK
    elsewhere = replace(early, machine=replace(images.MACHINE, arch="arm64"))
    assert refusal(accept, images.envelope(bad), elsewhere)[0] is Code.INCOMPATIBLE


def test_a_manifest_need_not_name_its_devices_in_clear() -> None:
    hashed = f"sha256-{sha256(b'device-1').hexdigest()}"
    wanted = Compatible(arch="amd64", hypervisors=("kvm",), device_ids=("other", hashed))
    check_compatible(wanted, images.MACHINE)
    for stranger in ("device-2", "", hashed[:-1]):
        machine = replace(images.MACHINE, device_id=stranger)
        assert refusal(check_compatible, wanted, machine)[0] is Code.INCOMPATIBLE


def test_no_list_of_devices_has_a_device_without_an_id() -> None:
    nobody = f"sha256-{sha256(b'').hexdigest()}"
    wanted = Compatible(arch="amd64", hypervisors=("kvm",), device_ids=(nobody,))
    machine = replace(images.MACHINE, device_id="")
    code, message = refusal(check_compatible, wanted, machine)
    assert code is Code.INCOMPATIBLE
    assert "this device (without an id)" in message


@pytest.mark.parametrize("kind", [SourceKind.FILE, SourceKind.STORED])
def test_a_revoked_image_is_refused_whoever_signed_it_and_wherever_it_lies(
    tmp_path: Path, good: Manifest, kind: SourceKind
) -> None:
    asked = request(tmp_path, kind)
    policy = {"threshold": 1, "revoked_images": ["a" * 64, good.image.digest]}
    Path(asked.keys, "policy.json").write_text(json.dumps(policy))
    code, message = refusal(accept, images.envelope(good), asked)
    assert code is Code.REVOKED
    assert good.image.digest in message
