"""Bad media while a good image's services run: each gets its verdict, and nobody is disturbed.

One agent sees them all, one after another, so what one of them left behind would show.
"""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.image.trailer import append_trailer
from extsloader.image.verity import image_size
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import ImageSpec
from tests.fakes.real_agent import RealAgent, agents, pids
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import (
    image_end,
    make_image,
    read_envelope,
    read_manifest,
    service,
    sign_again,
)

pytestmark = pytest.mark.root

BLOCK = 4096
Spoil = Callable[["Victim"], None]


class Victim:
    """A good image to be spoilt; `out` is what the agent gets to see."""

    def __init__(self, image: Path, out: Path, key: Ed25519PrivateKey) -> None:
        self.image = image
        self.out = out
        self.key = key
        self.end = image_end(image)
        shutil.copy(image, out)

    def sign_again(self, **changes: Any) -> None:
        sign_again(self.image, self.out, self.key, **changes)

    def resize(self, blocks: int) -> ImageSpec:
        """An image description that fits together, but not with this image."""
        spec = read_manifest(self.image).image
        verity = replace(spec.verity, data_blocks=blocks, hash_offset=blocks * BLOCK)
        return replace(spec, size=image_size(blocks), verity=verity)

    def flip(self, offset: int) -> None:
        with self.out.open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    def write(self, offset: int, data: bytes) -> None:
        with self.out.open("r+b") as file:
            file.seek(offset)
            file.write(data)


def leave_unsigned(victim: Victim) -> None:
    os.truncate(victim.out, victim.end)


def sign_with_another_key(victim: Victim) -> None:
    sign_again(victim.image, victim.out, Ed25519PrivateKey.generate())


def change_the_signed_manifest(victim: Victim) -> None:
    envelope = json.loads(read_envelope(victim.image))
    payload = base64.b64decode(envelope["payload"]).replace(b'"sequence":2', b'"sequence":9')
    changed = envelope | {"payload": base64.b64encode(payload).decode()}
    assert changed != envelope
    append_trailer(str(victim.out), json.dumps(changed).encode())


def damage_the_trailer(victim: Victim) -> None:
    victim.flip(victim.end + 200)


def damage_the_data(victim: Victim) -> None:
    victim.flip(victim.end // 3)


def damage_the_hash_tree(victim: Victim) -> None:
    victim.flip(victim.end - 100)


def cut_it_in_half(victim: Victim) -> None:
    os.truncate(victim.out, victim.end // 2 // BLOCK * BLOCK)


def cut_the_trailer(victim: Victim) -> None:
    os.truncate(victim.out, victim.end + 512)


def claim_more_than_there_is(victim: Victim) -> None:
    victim.sign_again(image=victim.resize(100_000))


def claim_less_than_there_is(victim: Victim) -> None:
    spec = victim.resize(2)
    digest = sha256(victim.image.read_bytes()[: spec.size]).hexdigest()
    victim.sign_again(image=replace(spec, digest=Digest(digest)))


def mean_another_processor(victim: Victim) -> None:
    compatible = read_manifest(victim.image).compatible
    victim.sign_again(compatible=replace(compatible, arch="arm64"))


def mean_another_device(victim: Victim) -> None:
    compatible = read_manifest(victim.image).compatible
    victim.sign_again(compatible=replace(compatible, device_ids=("device-2",)))


def let_services_wait_for_each_other(victim: Victim) -> None:
    first, second, *others = read_manifest(victim.image).services
    circle = (
        replace(first, requires=(second.name,)),
        replace(second, requires=(), after=(first.name,)),
    )
    victim.sign_again(services=(*circle, *others))


def require_what_is_not_there(victim: Victim) -> None:
    first, *others = read_manifest(victim.image).services
    victim.sign_again(services=(replace(first, requires=(ServiceName("nobody"),)), *others))


def let_it_expire(victim: Victim) -> None:
    victim.sign_again(expires="2020-01-01T00:00:00Z")


def come_from_the_future(victim: Victim) -> None:
    victim.sign_again(issued_at="2999-01-01T00:00:00Z")


def have_the_sequence_of_the_good_one(victim: Victim) -> None:
    victim.sign_again(sequence=1)


def blow_up_the_envelope(victim: Victim) -> None:
    """64 KiB and one byte: its length is the second number of the locator."""
    victim.write(victim.end + 12, (65537).to_bytes(4, "little"))
    victim.write(victim.end + 64, b"{" * 65537 + bytes(BLOCK))
    os.truncate(victim.out, victim.end + 20 * BLOCK)


def be_noise(victim: Victim) -> None:
    victim.out.write_bytes(os.urandom(64 * BLOCK))


def be_empty(victim: Victim) -> None:
    victim.out.write_bytes(bytes(64 * BLOCK))


CASES: dict[Spoil, tuple[str, str, str]] = {
    leave_unsigned: ("refused", "E_ENVELOPE", "a signed trailer expected"),
    sign_with_another_key: ("refused", "E_SIGNATURE", "none of the 1 accepted keys"),
    change_the_signed_manifest: ("refused", "E_SIGNATURE", "none of the 1 accepted keys"),
    damage_the_trailer: ("refused", "E_LAYOUT", "checksum"),
    damage_the_data: ("refused", "E_DIGEST", "is signed"),
    damage_the_hash_tree: ("refused", "E_DIGEST", "is signed"),
    cut_it_in_half: ("refused", "E_ENVELOPE", "the medium has"),
    cut_the_trailer: ("refused", "E_LAYOUT", "bytes expected"),
    claim_more_than_there_is: ("refused", "E_SIZE", "bytes are signed"),
    claim_less_than_there_is: ("refused", "E_SIZE", "its file system needs"),
    mean_another_processor: ("refused", "E_INCOMPATIBLE", "it is for arm64"),
    mean_another_device: ("refused", "E_INCOMPATIBLE", "device-1"),
    let_services_wait_for_each_other: ("refused", "E_DAG", "a -> b -> a is a cycle"),
    require_what_is_not_there: ("refused", "E_DAG", "nobody"),
    let_it_expire: ("refused", "E_EXPIRED", "2020-01-01"),
    come_from_the_future: ("refused", "E_CLOCK", "2999-01-01"),
    have_the_sequence_of_the_good_one: ("refused", "E_EQUIVOCATION", "sequence 1 of test"),
    blow_up_the_envelope: ("refused", "E_LIMIT", "65537 got"),
    be_noise: ("ignored", "E_FS_TYPE", "squashfs"),
    be_empty: ("ignored", "E_FS_TYPE", "squashfs"),
}


@pytest.fixture(scope="module")
def busy_agent(
    tmp_path_factory: pytest.TempPathFactory,
    key: Ed25519PrivateKey,
    module_stick: LoopDevice,
    good: Path,
) -> Iterator[RealAgent]:
    """An agent whose services run; their image came as a file, the stick is free."""
    watched = tmp_path_factory.mktemp("watched")
    shutil.copy(good, watched / "good.img")
    with agents(tmp_path_factory, key) as start:
        agent = start(module_stick.node, paths__watch=watched, device_id="device-1")
        agent.until_ready()
        yield agent


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey) -> Path:
    out = tmp_path_factory.mktemp("small") / "small.img"
    make_image(out, key, service("a"), service("b", requires=["a"]), sequence=2)
    return out


@pytest.fixture
def victim(small: Path, tmp_path: Path, key: Ed25519PrivateKey) -> Victim:
    return Victim(small, tmp_path / "bad.img", key)


@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_a_bad_image_is_refused_and_nobody_is_disturbed(
    busy_agent: RealAgent, module_stick: LoopDevice, victim: Victim, spoil: Spoil
) -> None:
    before = busy_agent.status()
    traces = busy_agent.stored(), busy_agent.mounts(), busy_agent.descriptors()
    spoil(victim)

    module_stick.plug_in(victim.out)
    try:
        found = busy_agent.until_verdict(module_stick.node)
    finally:
        module_stick.pull_out()
    busy_agent.until_gone(module_stick.node)

    verdict, code, words = CASES[spoil]
    assert (found.verdict, found.code) == (verdict, code), found
    assert words in found.reason
    assert found.hint
    after = busy_agent.status()
    assert (after.state, after.image, pids(after)) == ("ready", before.image, pids(before))
    assert not any(service.restarts for service in after.services)
    stored, mounts, descriptors = traces
    assert (busy_agent.stored(), busy_agent.mounts()) == (stored, mounts)
    assert set(busy_agent.descriptors()) ^ set(descriptors) == set()
