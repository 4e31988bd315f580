"""What stands between a running image and a disk that goes bad."""

import os
import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.model.reasons import Code
from tests.fakes.real_agent import StartAgent, pids
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service
from tests.fakes.real_verity import flip, forget_pages, mapped, needs_none, needs_verity

pytestmark = pytest.mark.root


@needs_none
def test_dm_verity_that_cannot_be_had_is_a_failure_with_a_next_step(
    start_agent: StartAgent, stick: LoopDevice, good: Path
) -> None:
    agent = start_agent(stick.node, integrity="verity")
    stick.plug_in(good)
    status = agent.until(lambda status: status.state == "failed")
    assert "cannot set up dm-verity for the image" in status.reason
    assert "image integrity" in agent.log()


@needs_none
def test_a_device_without_dm_verity_says_so_and_runs_from_the_store(
    start_agent: StartAgent, stick: LoopDevice, good: Path
) -> None:
    agent = start_agent(stick.node)
    stick.plug_in(good)
    status = agent.until_ready()
    assert status.image
    assert status.image.integrity == "store"
    assert "no dm-verity" in agent.log() or "device-mapper cannot be used" in agent.log()


@needs_verity
def test_a_block_that_goes_bad_is_told_and_disturbs_nobody(
    start_agent: StartAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    noise, out = tmp_path / "noise", tmp_path / "image"
    noise.write_bytes(os.urandom(1 << 20))
    make_image(out, key, service("victim"), service("bystander"), content=noise)
    agent = start_agent(stick.node)
    stick.plug_in(out)
    ready = agent.until_ready()
    assert ready.image
    assert ready.image.integrity == "verity"
    stored, mount = agent.store / agent.stored()[0], agent.run / "images" / ready.image.digest[:12]
    flip(stored, stored.read_bytes().index(noise.read_bytes()[300_000:300_064]))
    forget_pages()
    with pytest.raises(OSError, match="Input/output error"):
        (mount / "content").read_bytes()
    os.kill(pids(ready)["victim"] or 0, signal.SIGKILL)
    status = agent.until(lambda status: status.problems)
    assert status.problems[0].code is Code.VERITY
    assert status.image
    assert status.image.phase == "damaged"
    assert agent.until(lambda s: s.reason.endswith("all 2 services are ready")).state == "degraded"
    assert pids(status)["bystander"] == pids(ready)["bystander"]
    assert agent.ctl("status")[0] == 1
    assert agent.stop() == 0
    assert (agent.stored(), mapped()) == ([], [])
