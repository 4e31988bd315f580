"""What Pillar's side promises to the agent, real or made up."""

import shutil
from collections.abc import Callable

import pytest

from extsloader.adapters.agent_files import AgentFiles
from extsloader.adapters.pubsub import Publisher, Subscriber
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code
from extsloader.ports.pillar import PillarPorts
from tests.fakes.pillar import FakePillar
from tests.fakes.pubsub import item, topic

FillUp = Callable[[], object]


@pytest.fixture(params=["fake", "real"])
def pillar(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PillarPorts, FillUp]:
    """The ports, and how to make it impossible to write any file."""
    if request.param == "fake":
        made_up = FakePillar()
        return made_up.ports(), lambda: setattr(made_up, "full", True)
    folder = tmp_path_factory.mktemp("p")  # short: a socket's path has 107 bytes (unix(7))
    run = folder / "run"
    run.mkdir()
    ports = PillarPorts(
        publisher=Publisher(topic(run)),
        subscriber=Subscriber(topic(run, "zedagent", "ConfigItemValueMap")),
        files=AgentFiles(str(run)),
    )
    return ports, lambda: shutil.move(run, folder / "elsewhere")


async def test_a_whole_life(pillar: tuple[PillarPorts, FillUp]) -> None:
    ports, _ = pillar
    ports.publisher.open({"global": item()})
    ports.files.claim()
    ports.files.register()
    ports.files.touch()
    ports.subscriber.start(lambda _items: None, lambda _reason: None)
    ports.publisher.publish("global", item(b'{"State":1}'))
    ports.publisher.signal_restarted()
    ports.files.write_state(b"{}")
    assert ports.files.read_overrides() == {}
    ports.subscriber.close()
    ports.publisher.close()
    ports.files.release()


async def test_files_that_cannot_be_written_are_said(
    pillar: tuple[PillarPorts, FillUp],
) -> None:
    ports, fill_up = pillar
    ports.publisher.open({"global": item()})
    fill_up()
    writing: tuple[Callable[[], None], ...] = (
        lambda: ports.publisher.publish("global", item(b'{"State":1}')),
        ports.files.touch,
        ports.files.register,
        lambda: ports.files.write_state(b"{}"),
    )
    for work in writing:
        with pytest.raises(MachineError) as failed:
            work()
        assert failed.value.problem.code is Code.STATE
    ports.publisher.close()
