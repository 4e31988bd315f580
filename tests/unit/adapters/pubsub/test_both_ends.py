"""Publisher and subscribers together: nothing that lasts is lost, whatever the pace."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from extsloader.adapters.pubsub import Publisher
from tests.fakes.pubsub import Peer, hearing, item, publishing, topic

CHANGES = 10_000
PROJECT = Path(__file__).parents[4]

DOOMED = """
import asyncio, sys
from extsloader.adapters.pubsub import Publisher, Topic
from extsloader.model.pillar import Item

async def live():
    topic = Topic(agent="extsloader", name="ExtsloaderStatus", run=sys.argv[1])
    publisher = Publisher(topic)
    publisher.open({"global": Item(wire=b'{"State":1}', file=b'{"State":1}')})
    await asyncio.sleep(60)

asyncio.run(live())
"""


async def test_ten_thousand_changes_reach_three_readers_in_their_final_state(run: Path) -> None:
    begun = time.process_time()  # the machine may be busy with something else
    async with publishing(Publisher(topic(run)), **{"global": item()}) as publisher:
        slow = await Peer.dial(topic(run))
        async with hearing(topic(run)) as first, hearing(topic(run)) as second:
            for number in range(CHANGES):
                publisher.publish("global", item(b'{"Number":%d}' % number))
                await asyncio.sleep(0)
            last = b'{"Number":%d}' % (CHANGES - 1)
            await first.until_heard(**{"global": last})
            await second.until_heard(**{"global": last})
            assert first.told > CHANGES / 2  # a reader that keeps up misses little
        publisher.unpublish("global")
        heard = await slow.hear_all(b"delete ExtsloaderStatus Z2xvYmFs")
        assert len(heard) < CHANGES  # what is not so any more is skipped for a slow one
        slow.close()
    file = topic(run).directory
    assert list(file.iterdir()) == []
    assert time.process_time() - begun < 5


@pytest.fixture
def doomed(run: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that publishes "ready" and nothing else."""
    argv = [sys.executable, "-c", DOOMED, str(run)]
    with subprocess.Popen(argv, env={"PYTHONPATH": str(PROJECT)}) as process:
        yield process
        process.kill()


async def test_a_killed_agent_s_ready_is_never_told_again(
    run: Path, doomed: subprocess.Popen[bytes]
) -> None:
    async with hearing(topic(run)) as ear:
        await ear.until_heard(**{"global": b'{"State":1}'})
        doomed.kill()
        doomed.wait()
        file = topic(run).directory / "global.json"
        assert json.loads(file.read_bytes()) == {"State": 1}  # still claimed on the disk
        told = ear.told
        async with publishing(Publisher(topic(run)), **{"global": item()}):
            assert json.loads(file.read_bytes()) == {"State": 0}
            await ear.until_heard(**{"global": b'{"State":0}'})
            assert ear.told == told + 1
