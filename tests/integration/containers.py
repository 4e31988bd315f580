"""A place to run real services in: an image directory, a run directory, one agent after another."""

import asyncio
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from extsloader.adapters.cgroups.factory import open_cgroups
from extsloader.adapters.containerd import ContainerdRuntime
from extsloader.adapters.machine_facts import read_machine
from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.oci import OciRuntime
from extsloader.adapters.oci.processes import readable
from extsloader.core.oci import plan_container
from extsloader.model.events import Cause
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import Profile, Service
from extsloader.model.plan import ContainerPlan
from extsloader.model.settings import Ceiling, Paths, Settings
from extsloader.wiring.ports import open_runtime

BUSYBOX = Path("/bin/busybox")
DIGEST = Digest("0123456789ab" + "0" * 52)
CGROUP = f"extst-{os.getpid()}"
HIERARCHIES = Path("/sys/fs/cgroup")

DEV = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
PROC = {"destination": "/proc", "type": "proc", "source": "proc"}
ZERO = {"destination": "/dev/zero", "type": "bind", "source": "/dev/zero", "options": ["bind"]}


class Bench:
    """An image directory, a run directory and one agent after another."""

    def __init__(self, directory: Path, containerd: Path | None = None) -> None:
        """`containerd`: the socket of one that is to be used in place of conmon."""
        if not BUSYBOX.exists():
            pytest.skip("busybox-static is not installed")
        self.image = directory / "image"
        self.settings = Settings(
            cgroup=CGROUP,
            runtime="containerd" if containerd else "runc",
            ceiling=Ceiling(profile=Profile.TRUSTED),
            paths=Paths(
                run=f"{directory}/run",
                state=f"{directory}/state",
                pillar=f"{directory}",
                containerd=f"{containerd}",
            ),
        )
        self.machine = read_machine(self.settings)
        Path(self.settings.paths.run).mkdir()
        self.mounts = Mounts(self.settings.paths.run)
        self.ends: asyncio.Queue[tuple[str, int, Cause]] = asyncio.Queue()
        self._fifo = directory / "said"
        os.mkfifo(self._fifo)
        self._said = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        self.plans: list[ContainerPlan] = []
        self.runtime = self.new_agent()

    def new_agent(self) -> OciRuntime | ContainerdRuntime:
        """An agent that knows nothing but what lies in the run directory."""
        groups = open_cgroups(CGROUP, self.settings.limits)
        self.runtime = open_runtime(self.settings, self.machine, groups)
        self.runtime.start_watching(lambda *end: self.ends.put_nowait(end))
        return self.runtime

    def add_bundle(self, name: str, script: str, **changes: object) -> Service:
        """A service that runs a shell script, as LinuxKit lays it out."""
        bundle = self.image / "containers/services" / name
        for directory in ("bin", "proc", "dev", "sys", "tmp"):
            (bundle / "lower" / directory).mkdir(parents=True)
        install_shell(bundle / "lower")
        config = {
            "process": {"args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "mounts": [PROC, DEV],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
        }
        (bundle / "config.json").write_text(json.dumps(config | changes))
        return Service(name=ServiceName(name), bundle=f"containers/services/{name}")

    def plan(self, service: Service) -> ContainerPlan:
        """Plan the service and make its mounts."""
        bundle = self.mounts.read_bundle(f"{self.image}", service)
        plan = plan_container(bundle, service, f"{self.image}", DIGEST, self.settings, self.machine)
        assert isinstance(plan, ContainerPlan), plan
        self.plans.append(plan)
        self.mounts.apply(plan.mounts)
        return plan

    async def run(self, name: str, script: str, **changes: object) -> ContainerPlan:
        """Plan, mount, create and start."""
        plan = self.plan(self.add_bundle(name, script, **changes))
        await self.runtime.create(plan)
        await self.runtime.start(plan.service)
        return plan

    def record(self, name: str) -> dict[str, dict[str, int]]:
        (directory,) = Path(self.settings.paths.run, "containers").glob(f"{name}.*")
        found: dict[str, dict[str, int]] = json.loads((directory / "record.json").read_text())
        return found

    def bind_said(self) -> dict[str, object]:
        """A pipe in the container on which a script can tell the test something."""
        return {"destination": "/said", "source": f"{self._fifo}", "options": ["bind"]}

    def tell(self, line: str) -> None:
        """Write into that pipe what a script reads from it."""
        os.write(self._said, f"{line}\n".encode())

    async def said(self) -> str:
        async with asyncio.timeout(10):
            await readable(self._said)
        return os.read(self._said, 1000).decode()

    def replace_runtime_by_one_that_hangs(
        self, deadline: float, ends: str = "exec sleep 1000"
    ) -> None:
        program = self._fifo.with_name("hanging")
        program.write_text(f"#!/bin/sh\necho $$ > {self._fifo}\n{ends}\n")
        program.chmod(0o755)
        assert isinstance(self.runtime, OciRuntime)
        self.runtime._deadline = deadline
        self.runtime._command = (f"{program}", "--root", f"{self.settings.paths.run}/runtime")

    async def next_end(self) -> tuple[str, int, Cause]:
        async with asyncio.timeout(10):
            return await self.ends.get()

    def has_log(self, name: str) -> bool:
        return Path(self.settings.paths.logs, f"{name}.log").exists()

    def log(self, name: str, suffix: str = "log") -> str:
        return Path(self.settings.paths.logs, f"{name}.{suffix}").read_text()

    async def sweep(self) -> None:
        self.runtime.close()
        self.new_agent()
        os.close(self._said)
        for plan in self.plans:
            await self.runtime.delete(plan.service)
            self.mounts.undo(plan.mounts)
        self.runtime.close()
        self.assert_nothing_is_left()

    def assert_nothing_is_left(self) -> None:
        assert f"{self.image.parent}/" not in Path("/proc/mounts").read_text()
        remove_groups()


def remove_groups() -> None:
    """The group of the services themselves is gone with them, or this fails."""
    for hierarchy in HIERARCHIES.iterdir():
        for group in (*hierarchy.glob(f"{CGROUP}/*/"), hierarchy / CGROUP):
            if group.is_dir():
                group.rmdir()


def install_shell(root: Path) -> None:
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in ("sh", "sleep", "kill", "cut", "tail", "ps", "grep", "ln", "yes", "head"):
        (root / "bin" / name).symlink_to("busybox")


async def gone(pid: int) -> None:
    """Wait until a process that was killed is dead."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            async with asyncio.timeout(10):
                await readable(pidfd)
        finally:
            os.close(pidfd)
