"""A real agent below a directory of its own, a stick to plug in, and keys."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.real_agent import RealAgent, StartAgent, agents
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import BUSYBOX, make_image, service


@pytest.fixture(scope="session")
def key() -> Ed25519PrivateKey:
    """The key that every agent of these tests accepts."""
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey) -> Path:
    """An image of three services: site needs api, api needs base."""
    out = tmp_path_factory.mktemp("extst") / "good.img"
    make_image(
        out,
        key,
        service("site", requires=["api"]),
        service("api", requires=["base"]),
        service("base", essential=True),
    )
    return out


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey) -> Path:
    """The image after `good`: its base is another one, site is not in it any more."""
    out = tmp_path_factory.mktemp("extst") / "newer.img"
    base = service("base", essential=True, resources={"memory": 32 << 20})
    make_image(out, key, service("api", requires=["base"]), base, sequence=2)
    return out


@pytest.fixture(scope="module")
def module_stick() -> Iterator[LoopDevice]:
    device = LoopDevice()
    yield device
    device.remove()


@pytest.fixture
def stick() -> Iterator[LoopDevice]:
    """A drive without a medium; everything that is named like it passes the agent's filter."""
    device = LoopDevice()
    yield device
    device.remove()


@pytest.fixture
def start_agent(
    tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey
) -> Iterator[StartAgent]:
    with agents(tmp_path_factory, key) as start:
        yield start


@pytest.fixture
def agent(start_agent: StartAgent, stick: LoopDevice) -> RealAgent:
    """A running agent that looks at the stick and at nothing else."""
    return start_agent(stick.node)
