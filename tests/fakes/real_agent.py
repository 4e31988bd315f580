"""The real extsloaderd as a process of its own below one directory, seen only from outside."""

import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.ctl.client import Client
from extsloader.model.ids import ServiceName
from extsloader.model.status import (
    CandidateStatus,
    Explanation,
    ServiceStatus,
    StatusSnapshot,
)
from tests.fakes.real_images import write_keys

PROJECT = Path(__file__).parents[2]
HIERARCHIES = Path("/sys/fs/cgroup")
PATIENCE = 15.0  # seconds; everything here takes a fraction of one on a quiet machine
KEPT = ("log", "ExtsloaderStatus")  # below the run directory, for people and tools
STOP_WITHIN = 10.0  # seconds that SIGTERM may take, whatever the agent is doing


class RealAgent:
    """One root directory, and one daemon after another in it."""

    def __init__(self, root: Path, device: str, **settings: object) -> None:
        """`settings` is as environment variables name it: `timeouts__choose=0.1`."""
        self.root = root
        self.run = root / "run/extsloader"
        self.store = root / "persist/extsloader/store"
        self.cgroup = f"extst-{root.name}"
        self.client = Client(f"{self.run}/extsloader.sock")
        self.process: subprocess.Popen[bytes] | None = None
        self.before: Callable[[], None] | None = None  # what happens in its process before it does
        # Partitions included; no other device of the machine is ever opened.
        settings = {"cgroup": self.cgroup, "filters__devices": f"{device},{device}p*"} | settings
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "NOTIFY_SOCKET": str(root / "notify"),
            **{f"EXTSLOADER_{name.upper()}": str(value) for name, value in settings.items()},
        }

    def start(self, *before: str) -> None:
        """Start it and wait until it says that it is ready (sd_notify(3))."""
        with self._heard_ready():
            self.process = self.spawn(*before)

    def hand_over(self) -> None:
        """SIGUSR2; the next agent, in the same process, has said that it is ready."""
        with self._heard_ready():
            os.kill(self.pid, signal.SIGUSR2)

    @contextmanager
    def _heard_ready(self) -> Iterator[None]:
        address = self.root / "notify"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(address))
            yield
            self._hear(manager, b"READY=1")

    def _hear(self, manager: socket.socket, word: bytes) -> None:
        end = os.pidfd_open(self.pid)
        try:
            while True:
                heard, _, _ = select.select([manager.fileno(), end], [], [], PATIENCE)
                assert manager.fileno() in heard, f"the agent does not start: {self.log()}"
                if word in manager.recv(4096).splitlines():
                    return
        finally:
            os.close(end)

    def spawn(self, *before: str) -> subprocess.Popen[bytes]:
        """Start it and do not wait; `before` is what starts it, with options."""
        argv = [*before, sys.executable, "-m", "extsloader.lean", "--root", str(self.root)]
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(
                argv,
                env=self.environ,
                stderr=log,
                stdin=subprocess.DEVNULL,
                close_fds=self.before is None,
                preexec_fn=self.before,  # noqa: PLW1509 - the tests have no threads
            )

    @property
    def pid(self) -> int:
        assert self.process, "the agent was not started"
        return self.process.pid

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process, "the agent was not started"
        self.process.terminate()
        code = self.process.wait(STOP_WITHIN)
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL: it has no chance to clean up."""
        assert self.process, "the agent was not started"
        self.process.kill()
        self.process.wait()
        self.process = None

    def status(self) -> StatusSnapshot:
        return self.client.ask("/v1/status", StatusSnapshot)

    def until(
        self, is_so: Callable[[StatusSnapshot], object], within: float = PATIENCE
    ) -> StatusSnapshot:
        """The first status of which that is true, waiting by long poll."""
        deadline = time.monotonic() + within
        status = self.status()
        while not is_so(status):
            left = deadline - time.monotonic()
            assert left > 0, f"it never came true; the status is {status}\n{self.log()}"
            target = f"/v1/status?beyond={status.generation}&timeout={left:.3f}"
            status = self.client.ask(target, StatusSnapshot, wait=left)
        return status

    def until_ready(self) -> StatusSnapshot:
        return self.until(lambda status: status.state == "ready")

    def until_verdict(self, device: str | Path, *verdicts: str) -> CandidateStatus:
        """How a source that is there was judged, once there is one of these verdicts."""
        wanted = verdicts or ("ignored", "refused", "verified")

        def find(status: StatusSnapshot) -> list[CandidateStatus]:
            here = [c for c in status.candidates if c.present and c.device == str(device)]
            return [candidate for candidate in here if candidate.verdict in wanted]

        return find(self.until(find))[0]

    def until_gone(self, device: str | Path) -> CandidateStatus:
        """The last thing that is remembered of a source that was taken away."""

        def find(status: StatusSnapshot) -> list[CandidateStatus]:
            here = [c for c in status.candidates if c.device == str(device)]
            settled = not any(c.present or c.verdict in ("probing", "verifying") for c in here)
            return here if settled else []

        return find(self.until(find))[-1]

    def service(self, name: str) -> ServiceStatus:
        return find_service(self.status(), name)

    def explain(self, name: str) -> Explanation:
        return self.client.ask(f"/v1/services/{name}/explain", Explanation)

    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")

    def ctl(self, *arguments: str) -> tuple[int, str, str]:
        """extsloaderctl: exit code, output and complaints."""
        argv = [sys.executable, "-m", "extsloader.ctl.main", *arguments, "--root", str(self.root)]
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def stored(self) -> list[str]:
        return sorted(path.name for path in self.store.glob("*"))

    def groups(self) -> list[Path]:
        """Our parent control group, in each hierarchy that has it."""
        return [p for p in sorted(HIERARCHIES.glob(f"*/{self.cgroup}")) if p.is_dir()]

    def mounts(self) -> list[str]:
        """Mount points below the root; one that is mounted twice is there twice."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = (line.split()[4] for line in lines)
        return sorted(point for point in points if point.startswith(f"{self.root}/"))

    def loops(self) -> list[str]:
        """Backing files of loop devices on files below the root."""
        found = []
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):
                found.append(file.read_text().strip())
        return [name for name in found if name.startswith(f"{self.root}/")]

    def processes(self) -> dict[int, str]:
        """Command lines of processes that name the root, or are in our control group."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                ours = f"/{self.cgroup}/" in (process / "cgroup").read_text()
                if line and (ours or re.search(rf"{self.root}(/|\s)", line)):
                    found[int(process.name)] = line
        return found

    def helpers(self, job: str = "verify") -> list[int]:
        """Helper processes at work: the daemon's children, or forks of `loaded`."""
        children = _children(self.pid)
        grandchildren = [each for child in children for each in _children(child)]
        return [pid for pid in (*children, *grandchildren) if _name(pid) == f"extsl-{job}"]

    def loaded(self) -> list[int]:
        """The process that has checked the settings and forks helpers, while it stays."""
        return [pid for pid in _children(self.pid) if b"extsloader.helper" in _words(pid)]

    def descriptors(self) -> list[str]:
        """What the daemon has open, without what it writes and who asks it just now."""
        lines = Path("/proc/net/unix").read_text().splitlines()
        connections = {f"socket:[{line.split()[6]}]" for line in lines if f" {self.run}/" in line}
        found = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):
                found.append(str(link.readlink()))
        state = self.store.parent  # of files that are open for a moment each
        return sorted(n for n in found if n not in connections and Path(n).parent != state)

    def leftovers(self) -> list[str]:
        """Everything that a stopped agent must not leave on the machine."""
        return [
            *(f"mount {name}" for name in self.mounts()),
            *(f"loop device on {name}" for name in self.loops()),
            *(f"group {group}" for group in self.groups()),
            *(f"process {pid} ({line})" for pid, line in self.processes().items()),
            *(f"file {path}" for path in self.run.glob("*/*") if path.parent.name not in KEPT),
            *(f"socket {path}" for path in self.run.glob("*.sock")),
        ]

    def sweep(self) -> None:
        """After a test that failed: take away by force what belongs to this root."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        kill_all(self.processes())
        for point in reversed(self.mounts()):
            subprocess.run(["umount", point], check=False)
        for group in self.groups():
            for directory, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(directory).rmdir()


StartAgent = Callable[..., RealAgent]


@contextmanager
def agents(factory: pytest.TempPathFactory, key: Ed25519PrivateKey) -> Iterator[StartAgent]:
    """Agents that accept images of `key`; in the end they are stopped and must leave nothing."""
    with ExitStack() as stack:

        def start(device: str, **settings: object) -> RealAgent:
            root = factory.mktemp(secrets.token_hex(3), numbered=False)
            write_keys(root / "etc/extsloader/keys", [key])
            agent = RealAgent(root, device, **settings)
            stack.callback(agent.sweep)
            stack.callback(_stop_without_a_trace, agent)
            agent.start()
            return agent

        yield start


def _stop_without_a_trace(agent: RealAgent) -> None:
    code = agent.stop() if agent.process else 0
    log = agent.log()
    assert (code, agent.leftovers()) == (0, []), f"{code}\n{agent.leftovers()}\n{log}"
    assert not re.search("Traceback|surprise|event ignored|left behind", log), log


def find_service(status: StatusSnapshot, name: str) -> ServiceStatus:
    return {service.name: service for service in status.services}[ServiceName(name)]


def pids(status: StatusSnapshot) -> dict[str, int | None]:
    """Who runs; equal before and after means that nobody was disturbed."""
    return {service.name: service.pid for service in status.services}


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL for processes that are ours, and their end."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    """Wait for the end of a process, without being its parent."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            ended, _, _ = select.select([descriptor], [], [], PATIENCE)
            assert ended, f"process {pid} does not end"
        finally:
            os.close(descriptor)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _words(pid: int) -> list[bytes]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []
