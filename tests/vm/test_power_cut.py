"""The power goes at the worst moments; what the device finds at its next boot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.imagebuild.disk.partitions import make_persist_disk
from extsloader.imagebuild.disk.qemu import Via
from tests.fakes.guest import Guest, booted
from tests.fakes.real_images import make_image, service
from tests.vm.conftest import Dist

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]

SLOW = 2 << 20  # bytes a second
PATIENT = service(
    "patient", readiness={"kind": "exec", "command": ["/bin/test", "-e", "/go"], "timeout": 300}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device whose /persist outlives it, and a stick for it."""

    dist: Dist
    persist: Path
    stick: Path

    @asynccontextmanager
    async def on(self) -> AsyncIterator[Guest]:
        async with booted(replace(self.dist.machine(), persist=self.persist)) as guest:
            await guest.open_shell()
            yield guest


@pytest.fixture
def device(dist: Dist, build_key: Ed25519PrivateKey, tmp_path: Path) -> Device:
    device = Device(dist=dist, persist=tmp_path / "persist.raw", stick=tmp_path / "stick.img")
    make_persist_disk(device.persist, 512 << 20)
    filler = tmp_path / "filler"
    filler.write_bytes(Random(7).randbytes(16 << 20))  # noqa: S311 - 8 s at `SLOW`, no secret
    make_image(device.stick, build_key, PATIENT, service("steady"), content=filler)
    return device


async def test_after_each_power_cut_the_device_comes_up_clean(device: Device) -> None:
    async with device.on() as guest:  # cut while the image is copied
        await guest.attach("stick", device.stick, Via.USB, rate=SLOW)
        await guest.journal.expect(r"^candidate /dev/sd\S+: \S+ -> verifying")

    async with device.on() as guest:  # cut while services start
        await guest.run("extsloaderctl wait --for searching --timeout 60")
        assert await stored(guest) == []
        await guest.attach("stick", device.stick, Via.USB)
        await guest.journal.expect("^service patient: .* -> started")

    async with device.on() as guest:  # without the stick, and cut while all is well
        await become_ready(guest)

    async with device.on() as guest:
        await become_ready(guest)
        assert len(await stored(guest)) == 1
        mounts = await guest.run("cat /proc/self/mountinfo")
        assert mounts.count(" /run/extsloader/images/") == 1
        assert await guest.run("systemctl --failed --no-legend --plain") == ""


async def become_ready(guest: Guest) -> None:
    await guest.journal.expect("^service patient: .* -> started")
    (pid,) = (s.pid for s in (await guest.status()).services if s.name == "patient")
    await guest.run(f"touch /proc/{pid}/root/go")
    await guest.until("ready")


async def stored(guest: Guest) -> list[str]:
    return (await guest.run("ls -A /persist/extsloader/store")).split()
