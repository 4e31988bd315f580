"""What all tests share."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.virtual_time import VirtualTimeLoop

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Scenarios live in virtual time: hours pass in milliseconds. Everything else is real."""
    virtual = item.path.is_relative_to(config.rootpath / "tests" / "scenarios")
    return {"virtual": VirtualTimeLoop} if virtual else {"real": asyncio.new_event_loop}


@pytest.fixture
def run() -> Iterator[Path]:
    """As /run is: in memory, where a rename waits for no disk, and short enough for a socket."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="extst-", dir=place) as directory:
        yield Path(directory)
