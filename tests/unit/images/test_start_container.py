"""The script that starts the bootstrap image's containers, with programs that only note calls."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from extsloader.imagebuild.linuxkit.bundles import plan_bundles
from extsloader.imagebuild.linuxkit.definition import parse_definition
from extsloader.imagebuild.linuxkit.spec import ImageConfig

SCRIPT = (
    Path(__file__).parents[3] / "images/pkg/init/files/usr/lib/bootstrap/start-container"
)  # fmt: skip
HOME = "/containers/services"
NOTE = '#!/bin/sh\necho "${0##*/} $*" >> "$CALLS"\n'


class Machine:
    """A directory of bundles as the layout has them, and what was called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs = root / "bin"
        self.programs.mkdir()
        for name in ("mount", "mkdir", "runc"):
            self._add(name, NOTE)
        self._add("mountpoint", "#!/bin/sh\nexit 1\n")

    def _add(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def mounted(self) -> None:
        self._add("mountpoint", "#!/bin/sh\nexit 0\n")

    def lay_out(self, *services: dict[str, Any]) -> None:
        definition = parse_definition({"services": list(services)}, "bootstrap.yml")
        images = dict.fromkeys(definition.images, ImageConfig(args=("/svc",)))
        for bundle in plan_bundles(definition, images, "bootstrap.yml"):
            directory = self.root / Path(bundle.path).name
            directory.mkdir()
            (directory / "runtime.json").write_bytes(bundle.runtime)

    def start(self, name: str) -> tuple[int, str, list[str]]:
        """Exit code, complaints, and the calls before `runc`."""
        calls = self.root / f"{name}.calls"
        calls.touch()
        environment = os.environ | {"PATH": f"{self.programs}:/usr/bin:/bin", "CALLS": str(calls)}
        done = subprocess.run(
            ["/bin/sh", SCRIPT, self.root / name, "/run/x/pid"],
            env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        *before, last = calls.read_text().splitlines() or [""]
        if done.returncode == 0:
            assert last == f"runc run --detach --pid-file /run/x/pid -b {self.root}/{name} {name}"
        return done.returncode, done.stderr, before


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_service_gets_its_overlay_in_memory(machine: Machine) -> None:
    machine.lay_out({"name": "a", "image": "x:1"})
    upper, work = f"{HOME}/a/tmp/upper", f"{HOME}/a/tmp/work"
    layers = f"lowerdir={HOME}/a/lower,upperdir={upper},workdir={work}"

    assert machine.start("a") == (
        0,
        "",
        [
            f"mkdir -p {HOME}/a/tmp",
            f"mount -t tmpfs tmpfs {HOME}/a/tmp",
            f"mount --make-private {HOME}/a/tmp",
            f"mkdir -p {HOME}/a/rootfs {upper} {work}",
            f"mount -t overlay -o {layers} overlay {HOME}/a/rootfs",
        ],
    )


def test_a_shared_image_is_taken_from_its_first_user(machine: Machine) -> None:
    machine.lay_out({"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"})

    _, _, calls = machine.start("b")

    assert f"lowerdir={HOME}/a/lower,upperdir={HOME}/b/tmp/upper" in calls[-1]


def test_a_readonly_service_is_bound(machine: Machine) -> None:
    machine.lay_out({"name": "a", "image": "x:1", "readonly": True})

    _, _, calls = machine.start("a")

    assert calls[-1] == f"mount -o bind {HOME}/a/rootfs {HOME}/a/rootfs"


def test_the_definition_s_own_mounts_and_directories_are_made(machine: Machine) -> None:
    mount = {"type": "tmpfs", "source": "t", "destination": "/run/t", "options": ["ro", "size=1m"]}
    runtime = {"mkdir": ["/run/a", "/run/b"], "mounts": [mount], "cgroups": ["none"]}
    machine.lay_out({"name": "a", "image": "x:1", "readonly": True, "runtime": runtime})

    _, _, calls = machine.start("a")

    assert calls[2:] == [
        "mkdir -p /run/t",
        "mount -t tmpfs -o ro,size=1m t /run/t",
        "mkdir -p /run/a",
        "mkdir -p /run/b",
    ]


def test_what_is_mounted_already_stays(machine: Machine) -> None:
    machine.lay_out({"name": "a", "image": "x:1"})
    machine.mounted()

    assert machine.start("a") == (0, "", [])


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        ({"interfaces": [{"name": "eth9"}]}, "network interfaces are not supported"),
        ({"mkdir": ["/run/a<b"]}, 'runtime.json has an escaped character: "/run/a\\u003cb"'),
    ],
)
def test_what_it_cannot_do_is_said(machine: Machine, runtime: dict[str, Any], reason: str) -> None:
    machine.lay_out({"name": "a", "image": "x:1", "runtime": runtime})

    code, said, _ = machine.start("a")

    assert (code, said) == (1, f"cannot start the container a: {reason}\n")
