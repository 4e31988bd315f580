"""Hostile bundles against the real kernel and runc; each attack is shown to work unguarded."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extsloader.adapters.mounts.bundles import read_bundle
from extsloader.adapters.mounts.steps import do
from extsloader.core.ceiling import SECCOMP
from extsloader.model.errors import MachineError
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Service
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.reasons import Code
from tests.integration.containers import install_shell

pytestmark = pytest.mark.hostile

SERVICE = Service(name=ServiceName("web"), bundle="containers/services/web")
CALLS = "unshare -U true || echo no-unshare; mount -t tmpfs x /tmp || echo no-mount"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "bundle/rootfs"
    (root / "bin").mkdir(parents=True)
    install_shell(root)
    for name in ("proc", "tmp"):
        (root / name).mkdir()
    return root


@pytest.fixture
def name(tmp_path: Path) -> Iterator[str]:
    found = f"extst-{tmp_path.name[-20:].replace('_', '-')}"
    yield found
    command = ["runc", "--root", f"{tmp_path}/state", "delete", "-f", found]
    subprocess.run(command, check=False, capture_output=True, timeout=20)


def run(rootfs: Path, name: str, script: str, linux: dict[str, Any], *caps: str) -> str:
    """What the script says in a container that nobody guards but `linux`."""
    process = {
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": True,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
    }
    spec = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": f"{rootfs}"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "cgroupsPath": f"/{name}"}
        | linux,
    }
    (rootfs.parent / "config.json").write_text(json.dumps(spec))
    done = subprocess.run(
        ["runc", "--root", f"{rootfs.parents[1]}/state", "run", "-b", f"{rootfs.parent}", name],
        check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30,
    )  # fmt: skip
    return done.stdout + done.stderr


def check(rootfs: Path, place: str = "dev/") -> None:
    step = MountStep(kind=MountKind.CHECK, target=f"{rootfs}", options=(f"{rootfs}/{place}",))
    do(step, f"{rootfs.parents[1]}")


def test_config_json_is_a_link_to_the_host_H127(tmp_path: Path) -> None:  # noqa: N802 - row id
    secret = tmp_path / "secret"
    secret.write_text("{}")
    config = tmp_path / "image" / SERVICE.bundle / "config.json"
    config.parent.mkdir(parents=True)
    config.symlink_to(secret)
    assert config.read_text() == "{}"  # by plain open the host's file is read

    with pytest.raises(MachineError) as refused:
        read_bundle(f"{tmp_path}/image", SERVICE)
    assert refused.value.problem.code is Code.BUNDLE


@pytest.mark.parametrize("target", ["/tmp", "../outside", "tmp"])
def test_dev_is_a_link_H143(rootfs: Path, target: str) -> None:  # noqa: N802 - row id
    (rootfs / "dev").symlink_to(target)
    with pytest.raises(MachineError) as refused:
        check(rootfs)
    assert refused.value.problem.code is Code.BUNDLE


def test_dev_is_a_file_or_missing_or_good_H143(rootfs: Path) -> None:  # noqa: N802 - row id
    check(rootfs)  # the runtime makes it
    (rootfs / "dev").touch()
    with pytest.raises(MachineError):
        check(rootfs)
    check(rootfs, "proc/")


@pytest.mark.root
def test_without_the_check_runc_follows_dev_H143(rootfs: Path, name: str) -> None:  # noqa: N802
    outside = rootfs.parents[1] / "outside"
    outside.mkdir()
    (rootfs / "dev").symlink_to(outside)
    run(rootfs, name, "true", {})
    assert [path.name for path in outside.iterdir()]  # on the host


@pytest.mark.root
def test_seccomp_refuses_what_would_be_done_H141(rootfs: Path, name: str) -> None:  # noqa: N802
    assert run(rootfs, name, CALLS, {}, "CAP_SYS_ADMIN") == ""

    said = run(rootfs, name, CALLS, {"seccomp": SECCOMP}, "CAP_SYS_ADMIN")
    assert "no-unshare" in said
    assert "no-mount" in said
