"""A device that has nothing but the two lines of EVE's core image."""

import shutil
from pathlib import Path

import pytest

from extsloader.model.reasons import Code
from tests.fakes.real_agent import StartAgent
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service

pytestmark = pytest.mark.root


def test_the_image_that_the_core_image_names_runs_and_no_other_one(
    start_agent: StartAgent, stick: LoopDevice, tmp_path: Path
) -> None:
    # As process 1 of a pid namespace they would ignore SIGTERM until they had a handler for it.
    site, api = (service(name, "exec sleep 100000", {"pid": "host"}) for name in ("site", "api"))
    agent = start_agent(stick.node, ceiling__profile="trusted")
    assert agent.stop() == 0
    image, other = tmp_path / "image", tmp_path / "other"
    verity = make_image(image, None, site, api).image.verity
    make_image(other, None, service("site"))
    lines = agent.root / "etc/ext-verity-roothash"
    lines.write_text(f"{verity.root_hash}\n{verity.hash_offset}\n")
    shutil.rmtree(agent.root / "etc/extsloader/keys")
    agent.start()
    stick.plug_in(other)
    assert agent.until_verdict(stick.node).code is Code.VERITY
    stick.pull_out()
    stick.plug_in(image)
    found = agent.until_ready()
    assert [(s.name, s.state) for s in found.services] == [("api", "ready"), ("site", "ready")]
    assert found.image
    assert (found.image.name, found.image.version) == ("pinned", verity.root_hash[:12])
    assert found.floors == ()
    stick.pull_out()
    assert agent.stop() == 0
    agent.start()
    again = agent.until_ready().image
    assert again
    assert again.digest == found.image.digest
