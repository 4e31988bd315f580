"""What may lie in the store, by accident or by somebody's hand: never mounted, never in the way."""

import os
from pathlib import Path

import pytest

from extsloader.model.reasons import Code
from tests.fakes.real_agent import RealAgent, pids
from tests.fakes.real_devices import LoopDevice

pytestmark = pytest.mark.root


def test_f55_a_rotten_image_is_deleted_and_the_one_before_runs(
    agent: RealAgent, stick: LoopDevice, good: Path, newer: Path
) -> None:
    stick.plug_in(good)
    agent.until_ready()
    older = agent.stored()
    stick.pull_out()
    stick.plug_in(newer)
    agent.until_verdict(stick.node, "verified")
    stick.pull_out()
    assert agent.stop() == 0
    (rotten,) = set(agent.stored()) - set(older)
    with (agent.store / rotten).open("r+b") as file:
        file.seek(5000)
        file.write(b"rot")

    agent.start()
    status = agent.until_ready()

    assert agent.until_gone(agent.store / rotten).code is Code.DIGEST
    assert status.image
    assert [f"{status.image.digest}.img"] == older
    assert agent.stored() == older


def test_h171_h172_what_does_not_belong_there_is_never_mounted(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    ready = agent.until_ready()
    stick.pull_out()
    assert agent.stop() == 0
    (name,) = agent.stored()
    store = agent.store
    (store / "notes.txt").write_text("foreign")
    (store / f"{'1' * 64}.img").symlink_to(store / name)
    (store / f"{'2' * 64}.img").write_bytes((store / name).read_bytes())  # of another name
    (store / f"{'3' * 64}.img").touch()
    os.link(store / "notes.txt", store / f"{'4' * 64}.img")
    (store / f"{'5' * 64}.img").mkdir()
    os.mkfifo(store / f"{'6' * 64}.img")
    for number in range(100, 300):
        (store / f"{number:064x}.img.new").write_bytes(b"half")

    agent.start()
    again = agent.until_ready()

    other = store / f"{'2' * 64}.img"
    assert agent.until_gone(other).code is Code.DIGEST
    assert pids(again).keys() == pids(ready).keys()
    assert again.image
    assert f"{again.image.digest}.img" == name
    agent.until(lambda _: other.name not in agent.stored())
    left = agent.stored()
    assert name in left
    assert not [one for one in left if one.endswith(".new")]
    assert all(name in loop for loop in agent.loops())
