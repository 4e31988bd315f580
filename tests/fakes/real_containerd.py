"""A containerd of our own: Debian's, with everything that it has below one directory."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fakes.real_agent import kill_all

PATIENCE = 20.0  # seconds; it starts in a tenth of one on a quiet machine
NAMESPACE = "services.linuxkit"
# What it would look for on this machine and is not needed.
DISABLED = (
    *("grpc.v1.cri", "internal.v1.opt", "internal.v1.tracing", "tracing.processor.v1.otlp"),
    *(f"snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")),
)


class Containerd:
    """One daemon after another on the same directory."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self.socket = socket
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        plugins = ", ".join(f'"io.containerd.{name}"' for name in DISABLED)
        socket.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
        (directory / "config.toml").write_text(
            f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
            f'disabled_plugins = [{plugins}]\n[grpc]\naddress = "{socket}"\n'
            f'[ttrpc]\naddress = "{socket}.ttrpc"\n'
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = self._directory / "log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                ["containerd", "--config", f"{self._directory}/config.toml"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while self._try("version").returncode:
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()

    def kill(self) -> None:
        """SIGKILL; shims and containers go on."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ctr(self, *arguments: str) -> str:
        """What an operator sees."""
        done = self._try(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tasks(self) -> dict[str, str]:
        """`eve status`: names and states."""
        lines = self.ctr("tasks", "list").splitlines()[1:]
        return {line.split()[0]: line.split()[2] for line in lines}

    def containers(self) -> list[str]:
        """`eve list`."""
        return self.ctr("containers", "list", "--quiet").split()

    def _try(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ctr", "--address", f"{self.socket}", "--namespace", NAMESPACE, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def shims(self) -> list[int]:
        """Processes of shims that name our socket."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{self.socket}" in (process / "cmdline").read_text(errors="replace"):
                    found.append(int(process.name))
        return [pid for pid in found if not self._process or pid != self._process.pid]


@contextmanager
def containerd(socket: Path | None = None) -> Iterator[Containerd]:
    """One that runs, and that leaves nothing."""
    directory = Path(tempfile.mkdtemp(prefix="extst-"))  # short, as addresses of sockets are
    daemon = Containerd(directory / "d", socket or directory / "socket")
    try:
        daemon.start()
        yield daemon
        assert daemon.containers() == []
    finally:
        daemon.kill()
        kill_all(daemon.shims())
        shutil.rmtree(directory)
