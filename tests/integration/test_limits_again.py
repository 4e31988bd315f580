"""The limits of a service that is created where a container of an earlier agent is in the way."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from extsloader.adapters.cgroups.factory import open_cgroups
from extsloader.model.events import ServiceCreated
from extsloader.model.manifest import Resources
from extsloader.model.plan import ContainerPlan
from extsloader.runtime.service_work import ServiceWork
from extsloader.runtime.threads import Threads
from tests.fakes.real_containerd import containerd
from tests.integration.containers import CGROUP, HIERARCHIES, Bench

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not (HIERARCHIES / "memory").exists(), reason="needs cgroup version 1"),
]

MEMORY = 64 << 20
RESOURCES = Resources(
    memory=MEMORY, swap=4096, pids=20, cpu_quota=0.25, cpu_weight=50, io_read_bps=1 << 20
)


@pytest.fixture(params=["runc", "containerd"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "runc":
        bench = Bench(tmp_path)
        yield bench
        await bench.sweep()
        return
    with containerd() as daemon:
        bench = Bench(tmp_path, daemon.socket)
        yield bench
        await bench.sweep()


async def create(bench: Bench, plan: ContainerPlan) -> ServiceCreated:
    """As an agent does that knows nothing but what lies in the run directory."""
    bench.runtime.close()
    ports = SimpleNamespace(
        mounts=bench.mounts,
        cgroups=open_cgroups(CGROUP, bench.settings.limits),
        runtime=bench.new_agent(),
        readiness=None,
        device=SimpleNamespace(read_load=lambda: None),
    )
    threads = Threads()
    try:
        created = await ServiceWork(ports, threads, print).create(plan, 1)  # type: ignore[arg-type]  # what it asks
    finally:
        threads.close()
    assert isinstance(created, ServiceCreated)
    return created


def limits() -> dict[str, set[str]]:
    """The last word of each line: of a cap, there is one line for each disk."""
    found = {}
    for name in WANTED:
        controller = name.partition(".")[0]
        text = (HIERARCHIES / controller / CGROUP / "zeta" / name).read_text()
        found[name] = {line.split()[-1] for line in text.splitlines()}
    return found


WANTED = {
    "memory.limit_in_bytes": {f"{MEMORY}"},
    "memory.memsw.limit_in_bytes": {f"{MEMORY + 4096}"},
    "pids.max": {"20"},
    "cpu.shares": {"512"},
    "cpu.cfs_quota_us": {"25000"},
    "blkio.throttle.read_bps_device": {f"{1 << 20}"},
}


async def test_a_replaced_container_has_them(bench: Bench) -> None:
    service = replace(bench.add_bundle("zeta", "exec sleep 1000"), resources=RESOURCES)
    plan = bench.plan(service)
    first = await create(bench, plan)
    assert limits() == WANTED
    again = await create(bench, plan)  # it was created, never started
    assert again.pid != first.pid
    assert limits() == WANTED
