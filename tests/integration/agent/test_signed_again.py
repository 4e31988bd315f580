"""The bytes of an image, signed anew: what the store has, and what is mounted, stay one."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.real_agent import RealAgent, pids
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import sign_again

pytestmark = pytest.mark.root


@pytest.fixture(params=[1, 2], ids=["same-sequence", "higher-sequence"])
def again(
    request: pytest.FixtureRequest, good: Path, key: Ed25519PrivateKey, tmp_path: Path
) -> Path:
    path = tmp_path / "again.img"
    sign_again(good, path, key, version="again", sequence=request.param)
    return path


def test_a_stick_with_the_stored_bytes_signed_anew_does_not_lose_the_services(
    agent: RealAgent, stick: LoopDevice, good: Path, again: Path
) -> None:
    stick.plug_in(good)
    agent.until_ready()
    assert agent.stop() == 0
    stick.pull_out()
    stick.plug_in(again)
    agent.start()
    ready = agent.until_ready()
    agent.until_verdict(stick.node, "verified")
    agent.kill()

    agent.start()

    assert pids(agent.until(lambda status: status.state in ("ready", "failed"))) == pids(ready)


def test_nor_does_one_that_comes_while_they_run(
    agent: RealAgent, stick: LoopDevice, good: Path, again: Path
) -> None:
    stick.plug_in(good)
    ready = agent.until_ready()
    stick.pull_out()
    stick.plug_in(again)
    agent.until_verdict(stick.node, "verified")
    agent.kill()

    agent.start()

    assert pids(agent.until(lambda status: status.state in ("ready", "failed"))) == pids(ready)
