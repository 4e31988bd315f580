"""What deciding about many services costs, and what a storm of crashes does."""

import json
import tempfile
import time
from pathlib import Path

from bench.agent import running
from bench.idle import read_ticks
from bench.images import CONFIG, make_image
from extsloader.core import fleet, graph
from extsloader.model.events import ImageMounted
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.machine import Machine, Moment
from extsloader.model.manifest import (
    Compatible,
    ImageSpec,
    Manifest,
    Service,
    StoredImage,
    Verity,
)
from extsloader.model.plan import Bundle
from extsloader.model.settings import Settings
from extsloader.model.status import StatusSnapshot
from extsloader.model.world import World

RUNS = 9
CRASHING = 50
BACK_OFF = 120.0  # seconds until the storm has calmed down
STORM = 60.0  # seconds that are measured
TICKS = 100  # a second (sysconf(3), SC_CLK_TCK)


def measure() -> list[str]:
    """Decisions in this process, and the storm in a real agent."""
    return [*map(_plan_often, (250, 500, 1000, 2000)), *_measure_storm()]


def _plan_often(number: int) -> str:
    """Of processor time the least: what others use of the machine is not ours."""
    graph_time, plan_time = map(min, zip(*(_plan(number) for _ in range(RUNS)), strict=True))
    return (
        f"{number} services: circles, order and users {graph_time * 1000:.1f} ms, "
        f"{graph_time / number * 1e6:.1f} us each (goal for 1000: <= 50 ms, and linear); "
        f"with all specifications {plan_time * 1000:.0f} ms, {plan_time / number * 1e6:.0f} us each"
    )


def _plan(number: int) -> tuple[float, float]:
    """Seconds for the graph alone, and for everything that is planned at the mount."""
    image = _make_image(number)
    services = image.manifest.services
    mounted = ImageMounted(image.digest, "/mnt", tuple(map(_bundle, services)))
    world = World(settings=Settings(), machine=Machine(arch="amd64"), active=image.digest)
    moment = Moment(0.0)
    began = time.thread_time()
    graph.find_cycle(services)
    graph.start_order(services)
    graph.needed_by(services)
    between = time.thread_time()
    fleet.plan(world, image, mounted, moment)
    return between - began, time.thread_time() - between


def _make_image(number: int) -> StoredImage:
    services = tuple(
        Service(
            name=ServiceName(f"s{n}"),
            bundle=f"containers/services/s{n}",
            requires=(ServiceName(f"s{n // 2}"),) if n else (),
            after=(ServiceName(f"s{n - 1}"),) if n % 3 else (),
        )
        for n in range(number)
    )
    verity = Verity(
        algorithm="sha256",
        root_hash="",
        salt="",
        block_size=4096,
        data_blocks=1,
        hash_offset=4096,
    )
    manifest = Manifest(
        schema=1,
        name="bench",
        version="1",
        sequence=1,
        issued_at="2026-01-01T00:00:00Z",
        image=ImageSpec(size=8192, digest=Digest("0" * 64), format="squashfs", verity=verity),
        compatible=Compatible(arch="amd64", hypervisors=("kvm",)),
        services=services,
    )
    return StoredImage(manifest=manifest, path="/image", key_ids=())


def _bundle(service: Service) -> Bundle:
    return Bundle(service=service.name, config=json.dumps(CONFIG), runtime="")


def _measure_storm() -> list[str]:
    """All of them end at once after each start; none is given up while we look."""
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        image = make_image(
            Path(folder), CRASHING, command=("false",), more={"restart": {"limit": 0}}
        )
        root = Path(folder, "root")
        root.mkdir()
        with running(root, image.parent / "keys") as agent, agent.attached(image):
            agent.until(lambda status: any(s.state == "backing-off" for s in status.services))
            time.sleep(BACK_OFF)
            before, restarts = read_ticks(agent.pid), _count(agent.until(lambda _: True))
            time.sleep(STORM)
            ticks = read_ticks(agent.pid) - before
            more = _count(agent.until(lambda _: True)) - restarts
    share = ticks / TICKS / STORM * 100
    return [
        f"{CRASHING} services that crash at once, {BACK_OFF:.0f} s later: {more} restarts in "
        f"{STORM:.0f} s, the agent used {share:.1f} % of a core (goal: <= 2 %)"
    ]


def _count(status: StatusSnapshot) -> int:
    return sum(service.restarts for service in status.services)
