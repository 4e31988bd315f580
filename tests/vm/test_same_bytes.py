"""The build that the machines boot, once more from nothing but the downloads."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.vm.conftest import PROJECT, Dist

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

DEFINITIONS = [f"images/out/rootfs_{name}-kvm.yml" for name in ("bootstrap", "debug")]


def test_a_build_elsewhere_gives_the_same_bytes(dist: Dist, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("debs", "wheels"):
        (cache / name).symlink_to(PROJECT / ".cache" / name)
    installer = dist.pkgs.parent.absolute()
    options = ["--files", installer, "--conf", "images/conf", "--level", "15", "--allow-newer"]
    command = [sys.executable, "-m", "extsloader.imagebuild.main", "bootstrap", *DEFINITIONS]

    subprocess.run(
        [*command, *map(str, options), "--cache", str(cache), "--out", str(tmp_path)],
        check=True,
        cwd=PROJECT,
    )

    assert digest(tmp_path / dist.disk.name) == digest(dist.disk)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
