"""Each guard by itself: with it the attack is refused, and without it the attack succeeds.

A guard is switched off by putting something in its place that lets all pass. A refusal that stays
would be another guard's, and this one would prove nothing.
"""

import json
import os
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import SSlibKey

from extsloader.image.envelope import Envelope, Signature, build_envelope
from extsloader.image.schema import encode_manifest
from extsloader.image.signing import signers
from extsloader.image.trailer import append_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.ids import Digest
from extsloader.model.manifest import Manifest, StoredImage
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind
from extsloader.model.trust import Release
from extsloader.verify import store
from extsloader.verify.keys import KeyRing, Policy
from extsloader.verify.medium import Medium
from extsloader.verify.pipeline import verify
from tests.fakes import images
from tests.hostile.judge import envelope

pytestmark = pytest.mark.hostile

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000.0


def ignore(_done: int, _total: int) -> None:
    pass


class Device:
    """A device that accepts key 1, and the medium in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.medium = folder / "image"
        self.keys = folder / "keys"

    def has_keys(self, *numbers: int, **policy: Any) -> None:
        images.key_directory(self.keys, *numbers, **policy)

    def ask(self, source: Source | None = None, **changes: Any) -> Request:
        if not self.keys.exists():
            self.has_keys(1)
        asked = Request(
            source=source or images.file_source(self.medium),
            machine=images.MACHINE,
            keys=str(self.keys),
            store=images.store_in(self.folder),
            wall=NOW,
            reserve=0,
        )
        return replace(asked, **changes)

    def take(self, source: Source | None = None, **changes: Any) -> StoredImage:
        """Verify what is there; an image that is kept is one that would run."""
        stored, descriptor = verify(self.ask(source, **changes), ignore)
        os.close(descriptor)
        return stored

    def insert(self, *signers: int, **changes: Any) -> Manifest:
        return images.signed(self.medium, *signers, size=100, **changes)

    def insert_with(self, seal: Callable[[bytes], bytes], size: int = 100) -> None:
        """A good image whose envelope lies beside it, made of the manifest's bytes."""
        wanted = images.manifest(images.unsigned(self.medium, size))
        sidecar = self.medium.with_name("image.manifest.json")
        sidecar.write_bytes(seal(encode_manifest(wanted)))

    def spoil(self, path: Path, offset: int) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 1
        path.write_bytes(content)


@dataclass(frozen=True)
class Guard:
    """An attack, its refusal, and what is put in the place of each function or bound."""

    attack: Callable[[Device], object]
    code: Code
    off: dict[str, object]


def nothing(*_: object, **__: object) -> None:
    """What a check is that is not made."""


def a_stranger_signs(device: Device) -> object:
    device.insert(2)
    return device.take()


def one_key_signs_twice(device: Device) -> object:
    device.has_keys(1, 2, threshold=2)
    device.insert(1, 1)
    return device.take()


def signatures(found: Envelope, _keys: object) -> tuple[str, ...]:
    return tuple(signature.key_id for signature in found.signatures)


def one_key_lies_in_two_files(device: Device) -> object:
    device.has_keys(1, threshold=2)
    (device.keys / "2.pem").write_bytes((device.keys / "1.pem").read_bytes())
    device.insert(1)
    return device.take()


def every_file(keys: dict[str, SSlibKey], policy: Policy) -> KeyRing:
    return KeyRing(
        keys=tuple(keys.values()), retired=(), revoked=(), threshold=policy.threshold, epoch=0
    )


def every_signer(found: Envelope, keys: list[SSlibKey]) -> tuple[str, ...]:
    return tuple(name for key in keys for name in signers(found, [key]))


def anybody_signs_for_a_weak_key(device: Device) -> object:
    device.has_keys(1)
    weak = Ed25519PublicKey.from_public_bytes(b"\x01" + bytes(31))
    pem = weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (device.keys / "1.pem").write_bytes(pem)
    constant = Signature(key_id="", value=b"\x01" + bytes(63))
    device.insert_with(lambda wanted: build_envelope(wanted, [constant]))
    return device.take()


def a_key_signs_that_is(state: str) -> Callable[[Device], object]:
    def attack(device: Device) -> object:
        device.has_keys(1, 2, **{state: [1]})
        device.insert(1)
        return device.take()

    return attack


def a_revoked_image(device: Device) -> object:
    device.has_keys(1)
    digest = device.insert().image.digest
    (device.keys / "policy.json").write_text(
        json.dumps({"threshold": 1, "revoked_images": [digest]})
    )
    return device.take()


def another_block_than_the_core_image_names(device: Device) -> object:
    """The tree and the first block are those that are named."""
    tree = images.unsigned(device.medium, 700_000).verity
    lines = device.folder / "root-hash"
    lines.write_text(f"{tree.root_hash}\n{tree.hash_offset}\n")
    device.spoil(device.medium, 5000)
    return device.take(root_hash=str(lines))


def the_bare_manifest_is_signed(device: Device) -> object:
    """A signature that was made for another purpose, over bytes that can be read as a manifest."""

    def bare(wanted: bytes) -> bytes:
        value = Signature(key_id="", value=images.private_key(1).sign(wanted))
        return build_envelope(wanted, [value])

    device.insert_with(bare)
    return device.take()


def an_envelope(edit: Callable[[dict[str, Any]], str]) -> Callable[[Device], object]:
    """The good envelope, written down in another way."""

    def attack(device: Device) -> object:
        device.insert_with(lambda wanted: edit(envelope(wanted)).encode())
        return device.take()

    return attack


def with_two_payloads(found: dict[str, Any]) -> str:
    return f'{{"payload": "AAAA", {json.dumps(found)[1:]}'


def with_a_certificate(found: dict[str, Any]) -> str:
    return json.dumps(found | {"x5c": ["mine"]})


def with_a_blank_in_base64(found: dict[str, Any]) -> str:
    return json.dumps(found | {"payload": "\n" + found["payload"]})


def with_17_signatures(found: dict[str, Any]) -> str:
    return json.dumps(found | {"signatures": found["signatures"] * 17})


def of_65_kib(found: dict[str, Any]) -> str:
    return json.dumps(found).ljust(65 << 10)


def an_image(inserted: dict[str, Any] | None = None, **asked: Any) -> Callable[[Device], object]:
    """A well signed image with such a manifest, on a device that knows this."""

    def attack(device: Device) -> object:
        device.insert(**(inserted or {}))
        return device.take(**asked)

    return attack


def services_in_a_circle(device: Device) -> object:
    circle = images.manifest(images.unsigned(device.medium, 100), {"a": "b", "b": "a"})
    append_trailer(str(device.medium), images.envelope(circle))
    return device.take()


def half_an_image(device: Device) -> object:
    """What is signed, and half of it there: all of that would be copied in vain."""
    device.insert_with(lambda wanted: json.dumps(envelope(wanted)).encode(), size=2 * store.CHUNK)
    with device.medium.open("r+b") as file:
        file.truncate(store.CHUNK)
    copied: list[int] = []
    try:
        verify(device.ask(), lambda done, _total: copied.append(done))
    except ImageRefusedError:
        if not copied:
            raise
    return copied


def a_byte_that_no_tree_covers(device: Device) -> object:
    """In the superblock of the hash tree, which tools may believe."""
    wanted = device.insert()
    device.spoil(device.medium, wanted.image.verity.hash_offset + 40)
    return device.take()


def a_stored_file(spoil: Callable[[Device, Path], Path]) -> Callable[[Device], object]:
    """An image that was good when it was brought in."""

    def attack(device: Device) -> object:
        device.insert()
        path = spoil(device, Path(device.take().path))
        return device.take(images.file_source(path, SourceKind.STORED))

    return attack


def that_rotted(device: Device, path: Path) -> Path:
    device.spoil(path, 200)
    return path


def under_anothers_name(_device: Device, path: Path) -> Path:
    return path.rename(path.with_name(f"{'0' * 64}.img"))


def unchecked(medium: Medium, *_: object) -> tuple[str, int]:
    return medium.source.id.path, os.dup(medium.descriptor)


def a_root_hash_of_another_tree(device: Device) -> object:
    image = images.unsigned(device.medium, 100)
    wrong = replace(image, verity=replace(image.verity, root_hash="0" * 64))
    append_trailer(str(device.medium), images.envelope(images.manifest(wrong)))
    return device.take()


def another_medium_at_the_same_path(device: Device) -> object:
    device.insert()
    seen = images.file_source(device.medium)
    device.insert(sequence=2)
    os.utime(device.medium, ns=(1, 1))
    return device.take(replace(seen, id=replace(seen.id, generation="before")))


def a_link(device: Device) -> object:
    device.insert()
    place = device.medium.rename(device.folder / "elsewhere")
    device.medium.symlink_to(place)
    return device.take()


def a_medium_that_trickles(device: Device) -> object:
    device.insert()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "PACE_WINDOW", 0.0)
        return device.take(min_rate=1 << 62)


def seventeen_keys(device: Device) -> object:
    device.has_keys(*range(1, 18))
    device.insert()
    return device.take()


FILE_ONLY = os.O_RDONLY | os.O_CLOEXEC
GUARDS = {
    "signatures": Guard(
        a_stranger_signs, Code.SIGNATURE, {"trust.check_signatures": lambda *_, **__: ((), False)}
    ),
    "distinct keys": Guard(one_key_signs_twice, Code.THRESHOLD, {"trust.signers": signatures}),
    "distinct files": Guard(
        one_key_lies_in_two_files,
        Code.KEYS,
        {"keys._sort_keys": every_file, "trust.signers": every_signer},
    ),
    "order of keys": Guard(
        anybody_signs_for_a_weak_key, Code.KEYS, {"signing._has_small_order": nothing}
    ),
    "number of keys": Guard(seventeen_keys, Code.KEYS, {"keys.MAX_KEYS": 100}),
    "revoked keys": Guard(
        a_key_signs_that_is("revoked"),
        Code.SIGNATURE,
        {"keys._read_policy": lambda *_: Policy()},
    ),
    "retired keys": Guard(
        a_key_signs_that_is("retired"),
        Code.SIGNATURE,
        {"keys._read_policy": lambda *_: Policy()},
    ),
    "revoked images": Guard(a_revoked_image, Code.REVOKED, {"floor.refuse_revoked": nothing}),
    "root hash of the core image": Guard(
        another_block_than_the_core_image_names,
        Code.VERITY,
        {"pipeline._check_pinned": nothing, "store.check_content": nothing},
    ),
    "what is signed": Guard(
        the_bare_manifest_is_signed, Code.SIGNATURE, {"signing.pae": lambda payload: payload}
    ),
    "one meaning": Guard(
        an_envelope(with_two_payloads), Code.ENVELOPE, {"envelope.parse_object": json.loads}
    ),
    "known members": Guard(
        an_envelope(with_a_certificate), Code.ENVELOPE, {"envelope._check_names": nothing}
    ),
    "one spelling": Guard(
        an_envelope(with_a_blank_in_base64),
        Code.ENVELOPE,
        {"envelope._decode": lambda _, text: b64decode(text)},
    ),
    "number of signatures": Guard(
        an_envelope(with_17_signatures), Code.LIMIT, {"envelope.MAX_SIGNATURES": 100}
    ),
    "length of the envelope": Guard(
        an_envelope(of_65_kib),
        Code.LIMIT,
        {f"{m}.MAX_ENVELOPE": 1 << 20 for m in ("envelope", "pipeline", "trailer")},
    ),
    "epoch": Guard(an_image(key_epoch_seen=5), Code.KEYS, {"trust.check_epoch": nothing}),
    "device": Guard(
        an_image(machine=replace(images.MACHINE, arch="arm64")),
        Code.INCOMPATIBLE,
        {"trust.check_compatible": nothing},
    ),
    "expiry": Guard(
        an_image({"expires": "2026-01-02T00:00:00Z"}), Code.EXPIRED, {"trust.check_time": nothing}
    ),
    "clock": Guard(an_image(wall=1e9), Code.CLOCK, {"trust.check_time": nothing}),
    "floor": Guard(
        an_image(floors=(Release(name="pkgs", sequence=2, digest=Digest("")),)),
        Code.ROLLBACK,
        {"trust.check_floor": nothing},
    ),
    "jump": Guard(
        an_image(
            {"sequence": 1 << 40}, floors=(Release(name="pkgs", sequence=1, digest=Digest("")),)
        ),
        Code.ROLLBACK,
        {"floor.MAX_STEP": 1 << 50},
    ),
    "twins": Guard(
        an_image(accepted=(Release(name="pkgs", sequence=1, digest=Digest("0" * 64)),)),
        Code.EQUIVOCATION,
        {"floor._is_twin": nothing},
    ),
    "graph": Guard(services_in_a_circle, Code.DAG, {"trust.check_graph": nothing}),
    "size": Guard(half_an_image, Code.SIZE, {"pipeline.check_size": nothing}),
    "room": Guard(an_image(reserve=1 << 60), Code.RESOURCE, {"store.Store.check_room": nothing}),
    "pace": Guard(
        a_medium_that_trickles, Code.TIMEOUT, {"store.Pace.timed": lambda _, read: read()}
    ),
    "digest": Guard(a_byte_that_no_tree_covers, Code.DIGEST, {"store.check_digest": nothing}),
    "stored digest": Guard(
        a_stored_file(that_rotted), Code.DIGEST, {"pipeline.check_digest": nothing}
    ),
    "stored name": Guard(
        a_stored_file(under_anothers_name),
        Code.DIGEST,
        {"pipeline.check_stored": unchecked},
    ),
    "hash tree": Guard(
        a_root_hash_of_another_tree, Code.VERITY, {"store.check_content": nothing}
    ),
    "identity": Guard(
        another_medium_at_the_same_path,
        Code.GONE,
        {"identity.check_source": nothing, "medium.check_source": nothing},
    ),
    "links": Guard(a_link, Code.PATH, {"identity.FLAGS": FILE_ONLY}),
}  # fmt: skip
PACKAGES = {"envelope": "image", "signing": "image", "trailer": "image", "floor": "core"}

ELSEWHERE = {
    "store.copy": "test_h097_hashing_first_and_copying_then_is_fooled",
    "identity._check_disk": "test_a_partition_and_its_disk_have_one_number",
    "medium._share": "test_a_medium_that_is_being_written_is_busy",
    "superblock": "test_without_the_guards_such_a_superblock_is_handed_to_the_kernel",
    "confinement": "test_each_layer_stops_what_no_other_does",
    "deadlines of helpers": "test_f15_helpers_that_hang_are_given_up_and_counted",
    "bounds of FAT": "test_h091_without_a_bound_a_loop_would_be_read_for_ever",
    "bounds of looking": "test_h103_without_the_limit_each_event_costs_a_helper",
    "verity options": "test_h123_without_the_option_the_superblock_would_be_believed",
    "verity status": "test_a_wrong_root_hash_is_refused_although_the_device_opens",
    "openat2": "test_h127_config_json_is_a_link_to_the_host",
    "places of mounts": "test_h143_without_the_check_runc_follows_dev",
    "a fresh /dev": "test_h135_masks_are_what_a_link_at_dev_null_leads_to",
    "seccomp": "test_h141_seccomp_refuses_what_would_be_done",
    "overlay options": "test_h119_without_our_options_the_kernel_follows_a_redirect",
    "nosuid, nodev": "test_h120_devices_and_setuid_programs_are_inert",
    "ceiling": "test_without_the_ceiling_it_would_be_granted",
    "lock": "test_h173_without_guards_a_link_makes_a_file_and_a_fifo_is_a_lock",
    "pidfd": "test_a_process_that_only_has_the_number_is_not_killed",
    "no descriptors": "test_h156_whoever_offers_room_for_descriptors_gets_them",
}  # fmt: skip
"""Guards that need more than a file: the test that shows each of them on and off."""


@cache
def functions(folder: str) -> frozenset[str]:
    """The names of all functions and methods below a folder of the project."""
    text = "\n".join(path.read_text() for path in (ROOT / folder).rglob("*.py"))
    return frozenset(re.findall(r"^ *(?:async )?def (\w+)\(", text, re.MULTILINE))


def test_what_the_table_of_rules_names_is_there() -> None:
    rows = re.findall(r"^\| R\d+ \|.*$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    assert [row.split()[1] for row in rows] == [f"R{number}" for number in range(1, 22)]
    for row in rows:
        *_, kept, shown, _ = row.split("|")
        for module in re.findall(r"`(.+?)`", kept):
            place = ROOT / "extsloader" / module
            assert place.is_dir() or place.with_suffix(".py").is_file(), module
        for test in re.findall(r"`(.+?)`", shown):
            assert (ROOT / "tests" / test).is_file(), test


def test_each_check_of_the_verification_has_an_attack() -> None:
    """A check that is added without one fails here."""
    known = {place.rpartition(".")[2] for guard in GUARDS.values() for place in guard.off}
    checks = {name for name in functions("extsloader/verify") if name.startswith("check_")}
    assert checks
    assert checks <= known


@pytest.mark.parametrize("test", ELSEWHERE.values(), ids=ELSEWHERE)
def test_the_attacks_on_all_other_guards_are_there(test: str) -> None:
    assert test in functions("tests")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_with_the_guard_the_attack_is_refused(device: Device, guard: Guard) -> None:
    with pytest.raises(ImageRefusedError) as refused:
        guard.attack(device)
    assert refused.value.problem.code is guard.code


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_without_the_guard_the_attack_succeeds(
    device: Device, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, instead in guard.off.items():
        module, _, name = place.partition(".")
        package = PACKAGES.get(module, "verify")
        monkeypatch.setattr(f"extsloader.{package}.{module}.{name}", instead)
    assert guard.attack(device)
