"""The way of a device in the field: firmware, boot loader, and a stick that was there before."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import copy

import pytest
import pytest_asyncio

from extsloader.imagebuild.disk.qemu import Machine, Via, plan_pkgs
from extsloader.imagebuild.verbs.machine import make_source
from extsloader.model.trust import Flag
from tests.fakes.guest import Guest, booted
from tests.fakes.tpm import software_tpm
from tests.vm.conftest import Dist

pytestmark = [
    pytest.mark.vm,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(dist: Dist, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guest]:
    """Ready, with the image of its stick; it has a TPM."""
    folder = tmp_path_factory.mktemp("device")
    stick = plan_pkgs(Via.VVFAT, make_source(Via.VVFAT, dist.pkgs, folder))
    with software_tpm(folder) as tpm:
        async with booted(Machine(disk=dist.disk), *stick, *tpm) as guest:
            await guest.open_shell()
            await guest.until("ready", within=150)
            yield guest


@pytest.fixture
def foretold(dist: Dist, tmp_path: Path) -> str:
    """What PCR 12 has to hold, by the verb for workstations."""
    copy(dist.pkgs.parent / "extsloader.pem", tmp_path)
    said = subprocess.check_output(
        [sys.executable, "-m", "extsloader.ctl.main", "--json", "pcr",
         "--image", dist.pkgs, "--keys", tmp_path]
    )  # fmt: skip
    return str(json.loads(said)["value"])


async def test_a_device_boots_by_its_firmware_and_runs_the_services_of_its_stick(
    device: Guest,
) -> None:
    assert await device.run("extsloaderctl status")
    assert await device.run("ls /sys/firmware/efi")
    assert await device.run("systemctl --failed --no-legend --plain") == ""


async def test_the_tpm_tells_the_image_once_even_if_the_agent_is_killed(
    device: Guest, foretold: str
) -> None:
    assert "measured by the TPM" in await device.run("extsloaderctl status")
    assert Flag.FLOOR_OPEN not in (await device.status()).flags
    assert foretold == await read_pcr(device)

    mark = device.journal.mark()
    await device.run("kill -9 $(systemctl show --property MainPID --value extsloaderd)")

    await device.until("ready", since=mark)
    assert "measured by the TPM" in await device.run("extsloaderctl status")
    assert foretold == await read_pcr(device)


async def read_pcr(guest: Guest) -> str:
    return (await guest.run("tpm2_pcrread sha256:12")).split("0x")[1].lower()


async def test_the_operator_sees_the_console_and_a_kill_leaves_nothing(
    dist: Dist, tmp_path: Path
) -> None:
    conf, scratch = tmp_path / "conf", tmp_path / "scratch"
    for folder in (conf, scratch):
        folder.mkdir()
    (conf / "server").write_text("zedcloud.example:443\n")
    options: list[Path | str] = [
        "--conf",
        conf,
        "--persist",
        tmp_path / "persist.raw",
        "--pkgs",
        dist.pkgs,
    ]
    argv = [sys.executable, "-m", "extsloader.imagebuild.main", "run", dist.disk, *options]
    run = await asyncio.create_subprocess_exec(
        *argv, "--append", "systemd.show_status=1",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(scratch)},
    )  # fmt: skip
    assert run.stdout
    try:
        assert (await run.stdout.readline()).startswith(b"booting ")
        async with asyncio.timeout(90):
            await run.stdout.readuntil(b"Reached target")
    finally:
        run.terminate()
    async with asyncio.timeout(10):
        await run.stdout.read()  # up to the end that QEMU's own end makes
        assert await run.wait() == 128 + 15
    assert list(scratch.iterdir()) == []
