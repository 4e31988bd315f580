"""A real extsloaderd below one directory, with one loop device of its own."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from extsloader.ctl.client import Client, UnreachableError
from extsloader.model.status import StatusSnapshot

CGROUP = "extsloader-bench"
DEADLINE = 120  # seconds
MEMORY = "/dev/shm"  # noqa: S108 - as /run on a device: a tmpfs, whatever it is on this machine


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent and the device that it watches."""

    pid: int
    device: str
    client: Client
    die_and_return: Callable[[], None]  # kill -9, and the next one is started

    def until(self, is_so: Callable[[StatusSnapshot], bool]) -> StatusSnapshot:
        """Wait for a status by long poll; RuntimeError: on a busy machine services may fail."""
        ends = time.monotonic() + DEADLINE
        status = self.client.ask("/v1/status", StatusSnapshot)
        while not is_so(status):
            if (left := ends - time.monotonic()) < 0:
                raise RuntimeError(f"after {DEADLINE} s {status.state}: {status.reason}")
            target = f"/v1/status?beyond={status.generation}&timeout={left:.0f}"
            status = self.client.ask(target, StatusSnapshot, wait=left)
        return status

    @contextmanager
    def attached(self, image: Path) -> Iterator[None]:
        """The image on the device."""
        subprocess.run(["losetup", "--read-only", self.device, image], check=True)
        try:
            yield
        finally:
            subprocess.run(["losetup", "--detach", self.device], check=True)


@contextmanager
def running(root: Path, keys: Path) -> Iterator[Agent]:
    """Start it, and stop it cleanly in the end. Raises RuntimeError when it left something."""
    run = tempfile.mkdtemp(prefix="extsloader-bench-", dir=MEMORY)
    device = subprocess.check_output(["losetup", "-f"], text=True).strip()
    etc = root / "etc" / "extsloader"
    etc.mkdir(parents=True)
    (etc / "keys").symlink_to(keys)
    (etc / "extsloader.toml").write_text(
        f'cgroup = "{CGROUP}"\n[filters]\ndevices = ["{device}"]\n[paths]\nrun = "{run}"\n',
        encoding="utf-8",
    )
    argv = [sys.executable, "-m", "extsloader.lean", "--root", str(root)]
    with (root / "log").open("wb") as log:
        daemons = [subprocess.Popen(argv, stderr=log)]

        def die_and_return() -> None:
            daemons[-1].kill()
            daemons[-1].wait()
            daemons.append(subprocess.Popen(argv, stderr=log))

        yield from _serve(daemons, run, root, device, die_and_return)


def _serve(
    daemons: list[subprocess.Popen[bytes]],
    run: str,
    root: Path,
    device: str,
    die_and_return: Callable[[], None],
) -> Iterator[Agent]:
    try:
        yield Agent(daemons[0].pid, device, _connect(run, root / "log"), die_and_return)
    finally:
        daemons[-1].send_signal(signal.SIGTERM)
        try:
            daemons[-1].wait(DEADLINE)
        except subprocess.TimeoutExpired:
            daemons[-1].kill()
            raise
        shutil.rmtree(run)
        if daemons[-1].returncode != 0:
            raise RuntimeError((root / "log").read_text(encoding="utf-8"))


def _connect(run: str, log: Path) -> Client:
    client = Client(f"{run}/extsloader.sock")
    for _ in range(200):
        try:
            client.get("/v1/healthz")
        except UnreachableError:
            time.sleep(0.05)
        else:
            return client
    raise RuntimeError(log.read_text(encoding="utf-8"))
