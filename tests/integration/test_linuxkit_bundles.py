"""Bundles that LinuxKit's own builder made, run for real from where our mounts put them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from extsloader.model.events import Cause, CauseKind
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Service
from tests.fakes import linuxkit as linuxkit_tar
from tests.integration.containers import (
    Bench,
    install_shell,
)

pytestmark = pytest.mark.root


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.sweep()


@pytest.fixture
def linuxkit(run_directories: None, bench: Bench) -> Bench:  # noqa: ARG001 - removed after it
    """The tree that LinuxKit's own builder made, with a shell in place of its empty programs."""
    linuxkit_tar.unpack(bench.image)
    for name in ("services/zeta", "onboot/000-setup", "volumes/vol"):
        lower = bench.image / "containers" / name / "lower"
        install_shell(lower)
        (lower / "bin/svc").write_text(
            "#!/bin/sh\n"
            "(echo > /written) 2> /dev/null && echo root is writable\n"
            "test -e /vol/bin/svc && echo has volume\n"
            "test -d /run/svc && echo has directory; exit 3\n"
        )
    return bench


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zeta", ["root is writable", "has directory"]),
        ("alpha", ["has volume", "has directory"]),
        ("beta", ["root is writable", "has directory"]),
    ],
)
async def test_linuxkit_bundles_run(linuxkit: Bench, name: str, said: list[str]) -> None:
    plan = linuxkit.plan(Service(name=ServiceName(name), bundle=f"containers/services/{name}"))
    await linuxkit.runtime.create(plan)
    await linuxkit.runtime.start(plan.service)
    assert (await linuxkit.next_end())[2] == Cause(CauseKind.CODE, 3)
    lines = [line.split(" F ", 1)[1] for line in linuxkit.log(name).splitlines()]
    assert lines == said


@pytest.fixture
def run_directories() -> Iterator[None]:
    """The bundles make these on the host; mounts there are undone, directories stay."""
    made = [path for path in (Path("/run/svc"), Path("/run/beta")) if not path.exists()]
    yield
    for path in made:
        if path.exists():
            path.rmdir()
