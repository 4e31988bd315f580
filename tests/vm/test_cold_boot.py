"""The way of a device in the field: firmware, boot loader, and a stick that was there before."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from extsloader.imagebuild.disk.qemu import Machine, Via, plan_pkgs
from extsloader.imagebuild.verbs.machine import make_source
from tests.fakes.guest import booted
from tests.vm.conftest import Dist

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]


async def test_a_device_boots_by_its_firmware_and_runs_the_services_of_its_stick(
    dist: Dist, tmp_path: Path
) -> None:
    stick = plan_pkgs(Via.VVFAT, make_source(Via.VVFAT, dist.pkgs, tmp_path))
    async with booted(Machine(disk=dist.disk), *stick) as guest:
        await guest.open_shell()
        await guest.until("ready", within=150)
        assert await guest.run("extsloaderctl status")
        assert await guest.run("ls /sys/firmware/efi")
        assert await guest.run("systemctl --failed --no-legend --plain") == ""


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
