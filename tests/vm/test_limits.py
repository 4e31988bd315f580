"""Limits are not only written down: what passes them is killed, slowed down or refused."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.imagebuild.disk.qemu import Via
from extsloader.model.reasons import Code
from extsloader.model.status import ServiceStatus
from tests.fakes.guest import Guest, booted
from tests.fakes.real_images import PARENT_WAITS, make_image, service
from tests.vm.conftest import Dist

pytestmark = [
    pytest.mark.vm,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

V1 = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
QUOTA = 0.2  # processors
PIDS = 8
LOW = 16 << 20  # bytes

EATER = service(
    "eater",
    "dd if=/dev/zero of=/dev/null bs=64M count=1",
    resources={"memory": LOW},
    restart={"policy": "never"},
)
SPINNER = service("spinner", "while :; do :; done", resources={"cpu_quota": QUOTA})
# The shell in which the fork fails ends; what it started and process 1 stay.
FORKER = service(
    "forker",
    PARENT_WAITS.format("(while :; do sleep 100000 & done)"),
    resources={"pids": PIDS},
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["", V1], ids=["v2", "v1"])
async def guest(
    request: pytest.FixtureRequest,
    dist: Dist,
    build_key: Ed25519PrivateKey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Guest]:
    image = tmp_path_factory.mktemp("limits") / "pkgs.img"
    make_image(image, build_key, EATER, SPINNER, FORKER)
    async with booted(dist.machine(request.param)) as guest:
        await guest.open_shell()
        await guest.attach("pkgs", image, Via.VIRTIO)
        await guest.journal.expect("^service eater: .* -> (failed|stopped|parked)")
        yield guest


async def test_a_service_that_eats_memory_is_killed_and_told_as_such(guest: Guest) -> None:
    eater = await find(guest, "eater")
    assert eater.code == Code.RESOURCE
    assert "more memory than its limit" in eater.reason


async def test_a_service_that_spins_gets_its_share_of_a_processor(guest: Guest) -> None:
    pid = (await find(guest, "spinner")).pid
    # The processor's time and the clock's are in hundredths of a second (proc(5)).
    sample = f"cut -d' ' -f14,15 /proc/{pid}/stat; cut -d' ' -f1 /proc/uptime"
    (used, then), (used_later, now) = [
        measure(await guest.run(sample)),
        # The guest itself lets time pass: this is no waiting for something.
        measure(await guest.run(f"sleep 3; {sample}")),
    ]
    assert 0.5 * QUOTA < (used_later - used) / (now - then) < 1.25 * QUOTA
    (stat,) = await group_files(guest, "spinner", "cpu.stat")
    assert stat["nr_throttled"] > 10


async def test_a_service_that_forks_without_end_is_refused(guest: Guest) -> None:
    (file,) = await group_files(guest, "forker", "pids.events")
    assert file["max"] >= 1
    status = await find(guest, "forker")
    assert status.usage
    assert status.usage.pids == PIDS - 1  # the shell that met the limit has ended


async def find(guest: Guest, name: str) -> ServiceStatus:
    status = await guest.status()
    return next(service for service in status.services if service.name == name)


async def group_files(guest: Guest, service: str, name: str) -> list[dict[str, int]]:
    """Numbers of a file in the service's control group, wherever its hierarchy is mounted."""
    glob = f"/sys/fs/cgroup/**/extsloader/**/{service}*/{name}"
    paths = (await guest.run(f"shopt -s globstar; readlink -e {glob} | sort -u")).splitlines()
    return [numbers(await guest.run(f"cat {path}")) for path in paths]


def numbers(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def measure(text: str) -> tuple[float, float]:
    """Seconds of processor time, and of the clock."""
    user, system, clock = text.split()
    return (int(user) + int(system)) / 100, float(clock)
