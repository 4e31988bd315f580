"""What the virtual machines boot: the artefacts of the last build, and small images of our own."""

import os
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.image.signing import load_private_key
from extsloader.imagebuild.disk.boot_files import extract_kernel
from extsloader.imagebuild.disk.qemu import Kernel, Machine
from tests.fakes.guest import Guest

PROJECT = Path(__file__).parents[2]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what a guest that outlives the test has said."""
    report = yield
    guests = {value for value in item.funcargs.values() if isinstance(value, Guest)}
    if report.failed:
        report.sections += [("guest", guest.tails()) for guest in guests]
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class Dist:
    """Artefacts of one build."""

    disk: Path
    pkgs: Path
    kernel: Kernel

    def machine(self, *words: str) -> Machine:
        """Booted without the firmware, which takes 4 s, and with more on the command line."""
        cmdline = " ".join((self.kernel.cmdline, *words))
        return Machine(disk=self.disk, kernel=replace(self.kernel, cmdline=cmdline))


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    """The build in $EXTST_DIST, else the last one."""
    folder = Path(os.environ.get("EXTST_DIST", PROJECT / "dist/amd64/current"))
    disk, pkgs = folder / "live-bootstrap.qcow2", folder / "installer/rootfs-pkgs.img"
    missing = [str(path) for path in (disk, pkgs) if not path.exists()]
    assert not missing, f"{' and '.join(missing)} missing: run `make live-bootstrap pkgs_rootfs`"
    kernel = extract_kernel(disk, tmp_path_factory.mktemp("kernel"))
    return Dist(disk=disk, pkgs=pkgs, kernel=kernel)


@pytest.fixture(scope="session")
def build_key() -> Ed25519PrivateKey:
    """The key whose public half is in the bootstrap image, from $EXTST_KEY or the build."""
    path = Path(os.environ.get("EXTST_KEY", PROJECT / "build/keys/extsloader.key"))
    assert path.exists(), f"{path} is missing: run `make live-bootstrap`"
    return load_private_key(str(path))
