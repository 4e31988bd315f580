"""An image of the bundles that LinuxKit's own builder made."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.adapters.machine_facts import read_machine
from extsloader.imagebuild.image import build_image
from extsloader.model.settings import Settings
from tests.fakes import linuxkit as linuxkit_tar
from tests.fakes.real_agent import StartAgent, find_service
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import BUSYBOX, IDLE

pytestmark = pytest.mark.root


@pytest.fixture
def linuxkit(tmp_path: Path, key: Ed25519PrivateKey) -> Path:
    """The tree as it is, but its programs, which are empty, are a shell and a script."""
    tree = tmp_path / "tree"
    linuxkit_tar.unpack(tree)
    for lower in tree.glob("containers/*/*/lower"):
        shutil.copy(BUSYBOX, lower / "bin/busybox")
        for name in ("sh", "sleep"):
            (lower / "bin" / name).symlink_to("busybox")
        (lower / "bin/svc").write_text(f"#!/bin/sh\n{IDLE}\n")
    services = [
        {"name": name, "bundle": f"containers/services/{name}"}
        for name in ("zeta", "alpha", "beta")
    ]
    build_image(tree, services, tmp_path / "linuxkit.img", [key])
    return tmp_path / "linuxkit.img"


@pytest.fixture
def run_directories() -> Iterator[None]:
    """The bundles make these on the host; mounts there are undone, directories stay."""
    made = [path for path in (Path("/run/svc"), Path("/run/beta")) if not path.exists()]
    yield
    for path in filter(Path.exists, made):
        assert not path.is_mount()
        path.rmdir()


@pytest.mark.usefixtures("run_directories")
def test_services_of_linuxkit_run(
    start_agent: StartAgent, stick: LoopDevice, linuxkit: Path
) -> None:
    agent = start_agent(stick.node, ceiling__profile="trusted")
    stick.plug_in(linuxkit)
    status = agent.until_ready()
    assert {service.name for service in status.services} == {"alpha", "beta", "zeta"}
    assert Path("/run/beta").is_mount()
    for service in status.services:
        assert "runtime.json cgroups are not made: 'svc'" in service.reduced
    if read_machine(Settings()).min_oom_score_adj > -999:
        (less,) = (text for text in find_service(status, "zeta").reduced if "oom" in text)
        assert less.startswith("oom score -999 is raised to")
        assert any(less in step for step in agent.explain("zeta").steps)
    assert agent.stop() == 0
    assert not Path("/run/beta").is_mount()
