"""Media that are slow, swapped, damaged or taken away while the agent copies from them.

The stick is made slow by the kernel itself, so that there is a "while".
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.model.status import StatusSnapshot
from tests.fakes.real_agent import HIERARCHIES, RealAgent, StartAgent, wait_for_end
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service

pytestmark = pytest.mark.root

MIB = 1 << 20
CONTENT = 5 * MIB
RATE = 6 * MIB  # bytes a second
SOON = {"timeouts__retry_base": 0.05, "timeouts__retry_cap": 0.05, "timeouts__retry_limit": 2}


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey) -> Path:
    """An image that takes more than a second to read from a slow stick."""
    directory = tmp_path_factory.mktemp("big")
    (directory / "content").write_bytes(os.urandom(CONTENT))
    out = directory / "big.img"
    make_image(out, key, service("a"), content=directory / "content")
    return out


class SlowDown:
    """A control group whose members read slowly from one device (blkio-controller.rst)."""

    def __init__(self, stick: LoopDevice) -> None:
        self._group = HIERARCHIES / f"blkio/extst-slow-{stick.number}"
        self._stick = stick

    def add(self, pid: int) -> None:
        """A process, and those that it has started already."""
        self._group.mkdir()
        number = Path(self._stick.node).stat().st_rdev
        device = f"{os.major(number)}:{os.minor(number)}"
        (self._group / "blkio.throttle.read_bps_device").write_text(f"{device} {RATE}")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for member in (pid, *children):
            (self._group / "cgroup.procs").write_text(f"{member}")

    def remove(self) -> None:
        if self._group.exists():
            for pid in (self._group / "cgroup.procs").read_text().split():
                wait_for_end(int(pid))
            self._group.rmdir()


@pytest.fixture
def slow_down(stick: LoopDevice) -> Iterator[SlowDown]:
    if not (HIERARCHIES / "blkio/cgroup.procs").exists():
        pytest.skip("there is no blkio hierarchy of version 1")
    group = SlowDown(stick)
    yield group
    group.remove()


@pytest.fixture
def slow_agent(slow_down: SlowDown, start_agent: StartAgent, stick: LoopDevice) -> RealAgent:
    """An agent for which the stick is slow."""
    agent = start_agent(stick.node, **SOON)
    slow_down.add(agent.pid)
    return agent


def is_copying(status: StatusSnapshot) -> bool:
    return any(c.progress and c.progress < 1 for c in status.candidates)


def assert_no_trace(agent: RealAgent) -> None:
    assert agent.stored() == []
    assert agent.helpers() == []
    assert agent.loops() == []


def test_a_slow_stick_shows_its_progress(
    slow_agent: RealAgent, stick: LoopDevice, big: Path
) -> None:
    stick.plug_in(big, "--read-only")
    status = slow_agent.until(is_copying)
    assert status.state == "verifying"
    assert slow_agent.stored() == []  # nothing has a name before it is whole
    slow_agent.until_ready()


def test_another_medium_in_its_place_while_copying(
    slow_agent: RealAgent, stick: LoopDevice, big: Path, good: Path, tmp_path: Path
) -> None:
    """The second one is good, too, and is judged by itself."""
    other = Path(shutil.copy(good, tmp_path))
    os.truncate(other, big.stat().st_size)
    stick.plug_in(big, "--read-only")
    slow_agent.until(is_copying)
    stick.swap(other)
    status = slow_agent.until_ready()
    first, second = (c for c in status.candidates if c.device == stick.node)
    assert (first.verdict, first.code, first.present) == ("refused", "E_GONE", False)
    assert (second.verdict, second.present) == ("verified", True)
    assert first.generation != second.generation
    assert status.image
    assert slow_agent.stored() == [f"{status.image.digest}.img"]


def test_bytes_that_are_gone_while_copying(
    slow_agent: RealAgent, stick: LoopDevice, big: Path, tmp_path: Path
) -> None:
    """The device stays, and reads fail."""
    file = Path(shutil.copy(big, tmp_path))
    stick.plug_in(file, "--read-only")
    slow_agent.until(is_copying)
    os.truncate(file, 4 * MIB)
    found = slow_agent.until_verdict(stick.node, "refused")
    assert found.code == "E_IO", found
    assert_no_trace(slow_agent)


@pytest.fixture
def mounted(stick: LoopDevice, big: Path, tmp_path: Path) -> Iterator[Path]:
    """A file system on the stick, mounted by somebody else; nothing of it is in memory yet.

    Nothing in its root has the name of an image, so the stick itself is left alone.
    """
    disk, directory = tmp_path / "disk", tmp_path / "mounted"
    directory.mkdir()
    with disk.open("wb") as file:
        file.truncate(4 * CONTENT)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    stick.plug_in(disk)
    subprocess.run(["mount", stick.node, directory], check=True)
    shutil.copy(big, directory / "pkgs.part")
    subprocess.run(["umount", directory], check=True)
    subprocess.run(["mount", stick.node, directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_a_file_that_is_deleted_while_copying(
    mounted: Path, slow_down: SlowDown, start_agent: StartAgent, stick: LoopDevice
) -> None:
    agent = start_agent(stick.node, paths__watch=f"{mounted}/later", **SOON)
    slow_down.add(agent.pid)
    mounted.joinpath("later").mkdir()
    mounted.joinpath("pkgs.part").rename(mounted / "later/pkgs.img")
    agent.until(is_copying)
    mounted.joinpath("later/pkgs.img").unlink()
    found = agent.until_gone(mounted / "later/pkgs.img")
    assert (found.verdict, found.code) == ("refused", "E_GONE")
    assert_no_trace(agent)


def test_a_stick_that_is_too_slow(
    slow_down: SlowDown, start_agent: StartAgent, stick: LoopDevice, big: Path
) -> None:
    agent = start_agent(stick.node, timeouts__verify=0.8, timeouts__retry_limit=1)
    slow_down.add(agent.pid)
    stick.plug_in(big, "--read-only")
    found = agent.until_verdict(stick.node, "refused")
    assert (found.code, "within 0.8 s" in found.reason) == ("E_TIMEOUT", True), found
    assert_no_trace(agent)


def test_a_stick_that_somebody_is_formatting(
    start_agent: StartAgent, stick: LoopDevice, good: Path
) -> None:
    """Who writes to a disk holds its lock (systemd.io/BLOCK_DEVICE_LOCKING)."""
    agent = start_agent(stick.node, **SOON)
    with Path(stick.node).open("rb") as device:
        fcntl.flock(device, fcntl.LOCK_EX)
        stick.plug_in(good)
        assert agent.until_verdict(stick.node, "refused").code == "E_BUSY"
    stick.pull_out()
    agent.until_gone(stick.node)
    stick.plug_in(good)
    agent.until_ready()


def test_a_helper_that_is_killed_gets_a_successor(
    slow_agent: RealAgent, stick: LoopDevice, big: Path
) -> None:
    stick.plug_in(big, "--read-only")
    slow_agent.until(is_copying)
    (helper,) = slow_agent.helpers()
    os.kill(helper, signal.SIGKILL)
    slow_agent.until_ready()
    assert re.search(r"verifying -> retrying: .* without a verdict \[E_HELPER\]", slow_agent.log())


@pytest.mark.parametrize("stopped", [False, True], ids=["busy helper", "helper that hangs"])
def test_the_agent_stops_while_copying(
    slow_agent: RealAgent, stick: LoopDevice, big: Path, stopped: bool
) -> None:
    stick.plug_in(big, "--read-only")
    slow_agent.until(is_copying)
    (helper,) = slow_agent.helpers()
    if stopped:
        os.kill(helper, signal.SIGSTOP)
    assert slow_agent.stop() == 0
    wait_for_end(helper)
    assert slow_agent.stored() == []


def test_the_agent_is_killed_while_copying(
    slow_agent: RealAgent, stick: LoopDevice, big: Path
) -> None:
    """The helper ends with the agent, as nobody waits for its verdict any more."""
    stick.plug_in(big, "--read-only")
    slow_agent.until(is_copying)
    (helper,) = slow_agent.helpers()
    slow_agent.kill()
    wait_for_end(helper)
    assert slow_agent.stored() == []
    slow_agent.start()
    slow_agent.until_ready()
