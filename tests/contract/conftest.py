"""Each port is one promise, kept by the fake machine and by the real one alike."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.machine import FakeMachine
from tests.integration.containers import CGROUP, HIERARCHIES


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def kind(request: pytest.FixtureRequest) -> str:
    """Which machine stands behind the port."""
    return str(request.param)


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After all of them neither mount nor loop device, group or process is left."""
    yield
    ours = f"{tmp_path_factory.getbasetemp()}/"
    assert ours not in Path("/proc/self/mountinfo").read_text()
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    assert not [loop for loop in backing if loop.read_text().startswith(ours)]
    assert not list(HIERARCHIES.glob(f"**/{CGROUP}"))
    assert not [pid for pid in processes() if ours in command_line(pid)]


def processes() -> list[str]:
    return [path.name for path in Path("/proc").iterdir() if path.name.isdecimal()]


def command_line(pid: str) -> str:
    with suppress(OSError):  # it has ended meanwhile
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""
