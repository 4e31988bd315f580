"""What all tests share."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.fakes.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Scenarios live in virtual time: hours pass in milliseconds. Everything else is real."""
    virtual = item.path.is_relative_to(config.rootpath / "tests" / "scenarios")
    return {"virtual": VirtualTimeLoop} if virtual else {"real": asyncio.new_event_loop}
