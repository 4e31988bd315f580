"""One machine, and media that come and go: what the agent makes of them, and what it disturbs."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.imagebuild.disk.qemu import Via
from extsloader.imagebuild.verbs.machine import make_source
from extsloader.model.status import ImageStatus
from tests.fakes.guest import Guest, booted
from tests.fakes.real_images import make_image, read_manifest, service, sign_again
from tests.fakes.standins import assert_undisturbed, read_standins
from tests.vm.conftest import Dist

pytestmark = [
    pytest.mark.vm,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

SLOW = 2 << 20  # bytes a second: above what the agent calls too slow
ROADS = [Via.VIRTIO, Via.USB, Via.VVFAT, Via.PARTITION]
SERVICES = (service("alpha"), service("beta", requires=["alpha"]))
PATIENT = service(
    "patient", readiness={"kind": "exec", "command": ["/bin/test", "-e", "/go"], "timeout": 300}
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(dist: Dist) -> AsyncIterator[Guest]:
    async with booted(dist.machine()) as guest:
        await guest.open_shell()
        yield guest


@pytest_asyncio.fixture(loop_scope="module")
async def searching(guest: Guest) -> AsyncIterator[Guest]:
    """A device that has no medium and never saw one; nothing boot-critical is disturbed."""
    before = await read_standins(guest)
    yield guest
    for name in sorted(guest.attached):
        await guest.detach(name)
    await guest.run(
        "systemctl stop extsloaderd && rm -rf /persist/extsloader/* && systemctl start extsloaderd"
    )
    assert_undisturbed(before, await read_standins(guest))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def image(folder: Path, build_key: Ed25519PrivateKey) -> Path:
    """Two services in a few MiB."""
    path = folder / "two-services.img"
    make_image(path, build_key, *SERVICES)
    return path


@pytest.fixture(scope="module")
def large(folder: Path, build_key: Ed25519PrivateKey) -> Path:
    """16 MiB: 8 s at `SLOW`."""
    filler = folder / "filler"
    filler.write_bytes(random_bytes(16 << 20))
    path = folder / "large.img"
    make_image(path, build_key, *SERVICES, content=filler)
    return path


async def test_a_device_without_a_pkgs_image_is_healthy_and_searches(searching: Guest) -> None:
    await searching.run("extsloaderctl wait --for searching --timeout 60")
    code, text = await searching.sh("extsloaderctl status")
    assert code == 1
    assert text.startswith("searching")
    assert (await searching.run("systemctl --failed --no-legend --plain")) == ""


@pytest.mark.parametrize("via", ROADS)
async def test_an_image_is_found_on_every_road(
    searching: Guest, image: Path, via: Via, tmp_path: Path
) -> None:
    mark = searching.journal.mark()
    await searching.attach("pkgs", make_source(via, image, tmp_path), via)
    await searching.until("ready", since=mark)
    status = await searching.status()
    assert {service.state for service in status.services} == {"ready"}


async def test_a_stick_pulled_while_it_is_copied_is_told_and_taken_when_it_is_back(
    searching: Guest, large: Path
) -> None:
    mark = searching.journal.mark()
    await searching.attach("stick", large, Via.USB, rate=SLOW)
    await searching.journal.expect(r"^candidate /dev/sd\S+: \S+ -> verifying", since=mark)
    await searching.detach("stick")
    await searching.until("searching", since=mark)
    gone = [c for c in (await searching.status()).candidates if c.device.startswith("/dev/sd")]
    assert [(c.present, c.code) for c in gone] == [(False, "E_GONE")]
    assert await searching.run("ls /persist/extsloader/store") == ""

    await searching.attach("stick", large, Via.USB)
    await searching.until("ready", since=mark)


async def test_a_stick_pulled_while_services_start_is_not_missed(
    searching: Guest, folder: Path, build_key: Ed25519PrivateKey
) -> None:
    image = folder / "patient.img"
    make_image(image, build_key, PATIENT)
    mark = searching.journal.mark()
    await searching.attach("stick", image, Via.USB)
    await searching.journal.expect("^service patient: .* -> started", since=mark)
    await searching.detach("stick")
    (patient,) = (await searching.status()).services
    await searching.run(f"touch /proc/{patient.pid}/root/go")
    await searching.until("ready", since=mark)
    assert not (await image_of(searching)).source_present


async def test_a_stick_pulled_from_a_ready_device_and_put_back_changes_nothing(
    searching: Guest, image: Path
) -> None:
    mark = searching.journal.mark()
    await searching.attach("stick", image, Via.USB)
    await searching.until("ready", since=mark)
    before = await searching.status()
    await searching.detach("stick")
    await searching.journal.expect(r"^candidate /dev/sd\S+: \S+ -> verified, gone", since=mark)
    assert not (await image_of(searching)).source_present

    back = searching.journal.mark()
    await searching.attach("stick", image, Via.USB)
    await searching.journal.expect(r"^candidate /dev/sd\S+: \S+ -> verified$", since=back)
    after = await searching.status()
    assert [s.pid for s in after.services] == [s.pid for s in before.services]


async def test_of_two_sticks_the_higher_sequence_wins(
    searching: Guest, image: Path, folder: Path, build_key: Ed25519PrivateKey
) -> None:
    newer = folder / "newer.img"
    make_image(newer, build_key, *SERVICES, service("gamma"), sequence=2)
    mark = searching.journal.mark()
    await searching.run("systemctl stop extsloaderd")
    await searching.attach("newer", newer, Via.USB)
    await searching.attach("older", image, Via.USB)
    # The first verdict comes from a process that is ready, the second one from one that starts:
    # without KVM that takes longer than the two seconds that others are waited for.
    await searching.run("systemctl set-environment EXTSLOADER_TIMEOUTS__CHOOSE=30")
    await searching.run("systemctl start extsloaderd")
    await searching.until("ready", since=mark)
    assert (await image_of(searching)).sequence == 2


async def test_a_stick_with_other_files_is_ignored_with_a_reason(
    searching: Guest, tmp_path: Path
) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"\xff\xd8" * 1000)
    mark = searching.journal.mark()
    await searching.attach("stick", tmp_path, Via.VVFAT)
    await searching.journal.expect(r"^candidate /dev/sd\S1: .*-> ignored: \S.*", since=mark)
    assert (await searching.status()).state == "searching"


async def test_a_stick_with_garbage_is_ignored_with_a_reason(
    searching: Guest, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(random_bytes(8 << 20))
    mark = searching.journal.mark()
    await searching.attach("stick", garbage, Via.USB)
    found = await searching.journal.expect(r"^candidate /dev/sd\S+: .*-> ignored: .*", since=mark)
    assert "E_FS_TYPE" in found[0]


async def test_every_read_of_a_good_image_is_checked(searching: Guest, image: Path) -> None:
    mark = searching.journal.mark()
    await searching.attach("pkgs", image, Via.VIRTIO)
    await searching.until("ready", since=mark)
    assert (await image_of(searching)).integrity == "verity"
    assert "VERITY" in await searching.run("cat /sys/block/dm-*/dm/uuid")


async def test_an_image_with_another_root_hash_is_refused(
    searching: Guest, image: Path, tmp_path: Path, build_key: Ed25519PrivateKey
) -> None:
    wrong, spec = tmp_path / "wrong.img", read_manifest(image).image
    verity = replace(spec.verity, root_hash="00" * 32)
    sign_again(image, wrong, build_key, image=replace(spec, verity=verity))
    mark = searching.journal.mark()
    await searching.attach("pkgs", wrong, Via.VIRTIO)
    line = r"^candidate /dev/vd\S: verifying -> refused: .*E_VERITY"
    await searching.journal.expect(line, since=mark)


async def test_a_block_that_changes_after_the_verification_is_found_and_told(
    searching: Guest, large: Path
) -> None:
    mark = searching.journal.mark()
    await searching.attach("pkgs", large, Via.VIRTIO)
    await searching.until("ready", since=mark)
    mark = searching.journal.mark()
    await searching.run(
        "dd if=/dev/zero of=$(ls /persist/extsloader/store/*.img) bs=4096 seek=2048 count=1"
        " conv=notrunc status=none; sync; echo 3 >/proc/sys/vm/drop_caches"
    )
    code, _ = await searching.sh("cat /run/extsloader/images/*/content >/dev/null")
    assert code != 0, "a block that is not the signed one was read"
    beta = (await searching.status()).services[1]
    await searching.run(f"kill -9 {beta.pid}")  # the end of a service is a reason to look
    await searching.journal.expect(r"^image \S+: mounted -> damaged: .*E_VERITY", since=mark)


async def image_of(guest: Guest) -> ImageStatus:
    image = (await guest.status()).image
    assert image, "no image is active"
    return image


def random_bytes(count: int) -> bytes:
    """The same ones each time, and nothing a file system begins with."""
    return Random(7).randbytes(count)  # noqa: S311 - no secret
