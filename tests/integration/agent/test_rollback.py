"""Old images come back by every road that there is, and files of the agent's memory go bad."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.model.reasons import Code
from extsloader.model.trust import Flag
from tests.fakes.real_agent import RealAgent, StartAgent
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, read_manifest, service

pytestmark = pytest.mark.root


@pytest.fixture
def agent(start_agent: StartAgent, stick: LoopDevice) -> RealAgent:
    """An agent that is soon content with an image."""
    return start_agent(stick.node, timeouts__probation=0.2)


def memories(agent: RealAgent) -> list[Path]:
    state = agent.root / "persist/extsloader"
    return [state / "memory/images", state / "memory-copy/images"]


def run_well(agent: RealAgent, stick: LoopDevice, image: Path) -> None:
    """The floor is raised to this image's sequence, and the agent stopped."""
    sequence = read_manifest(image).sequence
    stick.plug_in(image)
    agent.until(lambda status: sequence in (floor.sequence for floor in status.floors))
    assert agent.stop() == 0
    stick.pull_out()


def test_an_old_image_does_not_come_back_on_a_stick(
    agent: RealAgent, stick: LoopDevice, good: Path, newer: Path
) -> None:
    run_well(agent, stick, newer)
    agent.start()
    stick.plug_in(good)
    found = agent.until_verdict(stick.node)
    assert (found.verdict, found.code) == ("refused", Code.ROLLBACK)
    assert "cannot accept sequence 1 of test: 2 or later expected" in found.reason
    assert agent.stored() == [f"{read_manifest(newer).image.digest}.img"]
    code, text, _ = agent.ctl("status")
    assert "floor test 2" in text
    assert agent.until_ready().image
    assert code in (0, 1)


def test_an_old_image_does_not_come_back_by_the_store(
    agent: RealAgent, stick: LoopDevice, good: Path, newer: Path
) -> None:
    stick.plug_in(good)
    agent.until_ready()
    (stored,) = agent.store.iterdir()
    assert agent.stop() == 0
    stick.pull_out()
    kept = stored.rename(agent.root / "kept")
    agent.start()
    run_well(agent, stick, newer)

    agent.store.joinpath(f"{read_manifest(newer).image.digest}.img").unlink()
    kept.rename(stored)
    agent.start()

    found = agent.until_verdict(stored)
    assert (found.verdict, found.code) == ("refused", Code.ROLLBACK)
    assert agent.status().image is None


def be(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else takes the file's place."""

    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


SPOILED: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "huge": lambda path: os.truncate(path, 1 << 30),
    "missing": lambda path: path.unlink(),
    "directory": be(Path.mkdir),
    "fifo": be(os.mkfifo),
    "link": be(lambda path: path.symlink_to("/etc/shadow")),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_one_spoiled_file_neither_stops_the_agent_nor_lowers_the_floor(
    agent: RealAgent, stick: LoopDevice, newer: Path, spoil: Callable[[Path], object]
) -> None:
    run_well(agent, stick, newer)
    first, second = memories(agent)
    spoil(first)
    agent.start()
    status = agent.until_ready()
    assert [(floor.name, floor.sequence) for floor in status.floors] == [("test", 2)]
    assert Flag.FLOOR_LOST not in status.flags
    assert agent.stop() == 0
    assert first.read_bytes() == second.read_bytes()
    assert "Traceback" not in agent.log()


def test_with_everything_spoiled_the_loss_is_told_until_an_image_has_run_well_again(
    agent: RealAgent, stick: LoopDevice, newer: Path
) -> None:
    run_well(agent, stick, newer)
    for path in memories(agent):
        for generation in (path, path.with_name("images.old")):
            generation.write_bytes(b"spoiled")
    agent.start()
    lost = agent.status()
    assert Flag.FLOOR_LOST in lost.flags
    assert {problem.code for problem in lost.problems} == {Code.STATE}
    agent.until(lambda status: status.floors and Flag.FLOOR_LOST not in status.flags)


def test_the_floor_that_the_core_image_brings_holds_for_the_first_image(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    assert agent.stop() == 0
    (agent.root / "etc/extsloader/keys/floor.json").write_text('{"test": 2}')
    agent.start()
    stick.plug_in(good)
    assert agent.until_verdict(stick.node).code is Code.ROLLBACK


def test_an_image_that_fails_its_probation_gives_way_to_the_stored_one(
    start_agent: StartAgent, stick: LoopDevice, good: Path, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    agent = start_agent(stick.node, timeouts__probation=0.2, timeouts__choose=60)
    run_well(agent, stick, good)
    bad = tmp_path / "bad"
    never = {"kind": "tcp", "port": 1, "timeout": 0.3}
    once = {"limit": 1, "base": 0.1, "cap": 0.1}
    make_image(bad, key, service("new", essential=True, readiness=never, restart=once), sequence=2)
    stick.plug_in(bad)
    agent.start()
    told = agent.until(lambda status: status.problems)
    assert "new gave up before it had run well" in told.problems[0].message
    back = agent.until_ready()
    assert back.image
    assert back.image.sequence == 1
    assert agent.stop() == 0
    agent.start()
    again = agent.until_ready().image
    assert again
    assert again.sequence == 1
