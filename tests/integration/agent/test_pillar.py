"""A real agent as one of Pillar's: what its neighbours on the device see."""

import json
import socket
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.real_agent import PATIENCE, RealAgent, StartAgent
from tests.fakes.real_devices import LoopDevice

pytestmark = pytest.mark.root


class Reader:
    """What vaultmgr does: dial, ask, and read packets."""

    def __init__(self, agent: RealAgent) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(f"{agent.run}/ExtsloaderStatus.sock")
        self._socket.send(b"request ExtsloaderStatus")

    def states(self) -> Iterator[int]:
        """Each state that is told, until the publisher ends."""
        while packet := self._socket.recv(65536):
            words = packet.split(b" ")
            if words[0] == b"update":
                yield json.loads(b64decode(words[3]))["State"]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def agent(start_agent: StartAgent, stick: LoopDevice) -> RealAgent:
    return start_agent(stick.node, pillar__enabled="true")


def read_file(agent: RealAgent) -> int:
    return int(json.loads((agent.run / "ExtsloaderStatus/global.json").read_bytes())["State"])


def test_neighbours_see_starting_and_then_ready_and_the_end(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    with closing(Reader(agent)) as reader:
        states = reader.states()
        assert next(states) == 0
        stick.plug_in(good)
        assert 1 in iter(states)
        assert read_file(agent) == 1
        assert json.loads((agent.root / "run/extsloader-state.json").read_text())["state"] == (
            "ready"
        )
        assert agent.stop() == 0
        assert list(states)[-1] == 0
    assert read_file(agent) == 0


def test_after_a_kill_nobody_is_told_the_old_ready(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    with closing(Reader(agent)) as reader:
        assert 1 in iter(reader.states())
    agent.kill()
    agent.start()
    with closing(Reader(agent)) as reader:
        first = next(reader.states())
        # The services were adopted: by now it may be true again, and then it was checked anew.
        assert first == 0 or agent.status().state == "ready"
    agent.until_ready()
    assert (agent.run / "ExtsloaderStatus/restarted").read_bytes() == b"2"


def test_the_watchdog_finds_what_it_looks_for_only_while_the_agent_lives(
    agent: RealAgent,
) -> None:
    run = agent.root / "run"
    assert (run / "extsloader.pid").read_bytes() == str(agent.pid).encode()
    registered = ["watchdog/file/extsloader.touch", "watchdog/pid/extsloader.pid"]
    assert all((run / name).exists() for name in registered)
    assert (run / "extsloader.touch").exists()
    assert agent.stop() == 0
    assert not any((run / name).exists() for name in (*registered, "extsloader.pid"))


def test_an_override_file_pauses_a_service(agent: RealAgent, stick: LoopDevice, good: Path) -> None:
    stick.plug_in(good)
    agent.until_ready()
    overrides = agent.root / "run/eve-service-overrides"
    overrides.mkdir()
    (overrides / "site").write_text("disabled\n")
    agent.until(lambda s: any((x.name, x.state) == ("site", "paused") for x in s.services))
    (overrides / "site").unlink()
    agent.until_ready()


def test_beside_a_living_publisher_of_the_name_the_agent_does_not_start(agent: RealAgent) -> None:
    agent.kill()
    place = agent.run / "ExtsloaderStatus.sock"
    place.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rival:
        rival.bind(str(place))
        rival.listen()
        assert agent.spawn().wait(PATIENCE) == 1
    assert "another publisher answers" in agent.log()
    assert "E_BUSY" in agent.log()
    agent.start()
