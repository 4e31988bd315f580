"""50 independent services: the agent against a bare loop of the same calls."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench.agent import MEMORY, running
from bench.images import CONFIG, make_image
from extsloader.adapters.oci import conmon
from extsloader.core.oci import plan_container
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.machine import Machine
from extsloader.model.manifest import Service
from extsloader.model.plan import Bundle
from extsloader.model.reasons import Problem
from extsloader.model.settings import Settings
from extsloader.model.status import Change

SERVICES = 50
PARALLEL = 4  # as limits.parallel_creates
RUNS = 5
GROUP = "extsloader-bench-bare"
QUIET = 3.0  # seconds, more than it takes
RUNC = ("/usr/sbin/runc",)
CONMON = "/usr/bin/conmon"


def measure() -> list[str]:
    """Mount to ready in the agent, against conmon and runc alone, in turn."""
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        image = make_image(Path(folder), SERVICES)
        ours, bare = [], []
        for run in range(RUNS):
            with tempfile.TemporaryDirectory(prefix="extsloader-bench-", dir=MEMORY) as bundles:
                bare.append(_run_bare(Path(bundles), image))
            ours.append(_run_agent(Path(folder, f"root{run}"), image))
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return [
        f"{SERVICES} independent services ready: median {statistics.median(ours):.2f} s "
        f"({min(ours):.2f} to {max(ours):.2f}) after the image was mounted",
        f"bare loop, conmon + runc create + start, {PARALLEL} at a time: median "
        f"{statistics.median(bare):.2f} s; ratio {ratio:.2f} (goal: <= 1.25)",
    ]


def _run_agent(root: Path, image: Path) -> float:
    root.mkdir()
    with running(root, image.parent / "keys") as agent, agent.attached(image):
        time.sleep(QUIET)  # nobody asks meanwhile: the agent's own history has the times
        agent.until(lambda status: status.state == "ready")
        json_only = (("Accept", "application/json"),)
        changes = agent.client.decode(
            agent.client.get("/v1/events?since=0", json_only), tuple[Change, ...]
        )
    when = {(change.subject.partition(" ")[0], change.new): change.wall for change in changes}
    return when["agent", "ready"] - when["image", "mounted"]


def _run_bare(folder: Path, image: Path) -> float:
    """The floor: the agent's own specifications on the same fresh mount of the same image.

    But no overlays, no groups made ahead, no readiness, no bookkeeping.
    """
    names = [f"idle-{number}" for number in range(SERVICES)]
    services = folder / "mnt" / "containers" / "services"
    for name in names:
        _lay_out(folder / name, services / name / "lower", name)
    mountpoint = f"{folder}/mnt"
    Path(mountpoint).mkdir()
    mount = ["mount", "-t", "squashfs", "-o", "loop,ro", str(image), mountpoint]
    with ExitStack() as stack, ThreadPoolExecutor(PARALLEL) as pool:
        stack.callback(_remove_groups)
        subprocess.run(mount, check=True)
        stack.callback(lambda: subprocess.run(["umount", mountpoint], check=True))
        for name in names:
            stack.callback(_delete, folder, name)
        started = time.perf_counter()
        list(pool.map(lambda name: _start(folder, name), names))
        return time.perf_counter() - started


def _lay_out(bundle: Path, rootfs: Path, name: str) -> None:
    service = Service(name=ServiceName(name), bundle=f"containers/services/{name}")
    config = Bundle(service=service.name, config=json.dumps(CONFIG), runtime="")
    settings = Settings(cgroup=GROUP)
    plan = plan_container(config, service, "/", Digest("0" * 64), settings, Machine(arch="amd64"))
    if isinstance(plan, Problem):
        raise TypeError(plan.message)
    spec = json.loads(plan.spec)
    spec["root"] = {"path": str(rootfs), "readonly": True}
    (bundle / "exits").mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps(spec), encoding="utf-8")


def _start(folder: Path, name: str) -> None:
    runtime = (*RUNC, "--root", f"{folder}/runtime")
    log = conmon.log_to_file(f"{folder}/{name}.log", 1 << 20)
    argv = conmon.command_line(CONMON, runtime, name, folder / name, log)
    reader, writer = os.pipe()
    conmon_end = os.dup(writer)
    with open(os.devnull, "rb+") as null:  # noqa: PTH123 - a descriptor is meant
        process = subprocess.Popen(
            argv,
            stdin=null,
            stdout=null,
            stderr=null,
            pass_fds=[conmon_end],
            env={"PATH": os.environ["PATH"], "_OCI_SYNCPIPE": str(conmon_end)},
        )
    for descriptor in (writer, conmon_end):
        os.close(descriptor)
    answer = os.read(reader, 4096)
    os.close(reader)
    if b'"data"' not in answer:
        process.kill()
        raise RuntimeError(answer)
    subprocess.run([*runtime, "start", name], check=True)


def _delete(folder: Path, name: str) -> None:
    command = [*RUNC, "--root", f"{folder}/runtime", "delete", "--force", name]
    subprocess.run(command, check=True)


def _remove_groups() -> None:
    """The runtime removes a container's group, but not the one that it made above it."""
    for group in Path("/sys/fs/cgroup").glob(f"**/{GROUP}"):
        group.rmdir()
