"""From the hub to three of Pillar's agents: many changes, and the last one is never lost."""

import asyncio
import json
from functools import partial
from pathlib import Path

import structlog

from extsloader.adapters.agent_files import AgentFiles
from extsloader.adapters.pubsub import Publisher, Subscriber
from extsloader.model.settings import Settings
from extsloader.model.status import AgentStatus, Usage
from extsloader.model.world import ServicePhase
from extsloader.ports.pillar import PillarPorts
from extsloader.runtime.hub import Hub, Live
from extsloader.runtime.pillar import PillarLink
from tests.fakes import builders, worlds
from tests.fakes.pubsub import Ear, hearing, topic

CHANGES = 10_000
LIVE = Live(
    agent=lambda: AgentStatus(version="0", pid=1, started=0.0),
    usage=lambda _service: Usage(),
    log=lambda _service: (),
    describe_log=lambda _service: "",
)


def says(ear: Ear, state: int) -> bool:
    return bool(ear.items) and json.loads(ear.items["global"])["State"] == state


async def test_ten_thousand_changes_of_the_status(run: Path) -> None:
    hub = Hub(builders.world(), builders.moment, LIVE)
    ports = PillarPorts(
        publisher=Publisher(topic(run)),
        subscriber=Subscriber(topic(run, "zedagent", "ConfigItemValueMap")),
        files=AgentFiles(str(run)),
    )
    link = PillarLink(Settings(), "IMGA", ports, builders.moment, structlog.get_logger())
    link.begin()
    telling = asyncio.get_running_loop().create_task(link.report(hub, lambda _digest: "/mnt"))
    searching = builders.world()
    ready = worlds.running(builders.service("a"), a=ServicePhase.READY)
    essential = builders.service("a", essential=True)
    failed = worlds.running(essential, a=ServicePhase.PARKED)
    here = topic(run)
    async with hearing(here) as first, hearing(here) as second, hearing(here) as third:
        for number in range(CHANGES):
            hub.publish(ready if number % 2 else searching)
            await asyncio.sleep(0)
        hub.publish(failed)
        for ear in (first, second, third):
            await ear.until(partial(says, ear, 2))
        telling.cancel()
        link.end()
        for ear in (first, second, third):
            await ear.until(partial(says, ear, 0))
