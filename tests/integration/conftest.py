"""What tests with real mounts share."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from extsloader.adapters.mounts.unmounting import leftovers, sweep
from extsloader.model.ids import Digest
from tests.fakes.real_mounts import Machine, loops_of, stored


@pytest.fixture(scope="module")
def squashfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("extst-tree")
    lower = tree / "containers/services/web/lower"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc/motd").write_text("hello")
    (lower / "empty").mkdir()
    (lower.parent / "config.json").write_text("{}")
    (lower.parent / "out").symlink_to("/etc")
    bad = tree / "containers/services/bad"
    bad.mkdir()
    (bad / "config.json").symlink_to("/etc/hostname")
    image = tmp_path_factory.mktemp("extst-image") / "pkgs.squashfs"
    subprocess.run(
        ["mksquashfs", tree, image, "-quiet", "-no-progress", "-comp", "zstd"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return image


@pytest.fixture
def machine(tmp_path: Path, squashfs: Path) -> Iterator[Machine]:
    content = squashfs.read_bytes()
    digest = Digest(hashlib.sha256(content + str(tmp_path).encode()).hexdigest())
    store = tmp_path / "store"
    store.mkdir()
    path = store / f"{digest}.img"
    path.write_bytes(content + b"the trailer" * 1000)
    run = tmp_path / "run"
    run.mkdir(0o700)
    yield Machine(run, stored(path, len(content), digest), run / "images" / digest[:12])
    sweep(str(tmp_path))
    assert leftovers(str(tmp_path)) == ()
    assert loops_of(tmp_path) == []
