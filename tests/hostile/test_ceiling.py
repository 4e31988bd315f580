"""What a signed image may not ask for under the default profile, row by row."""

import json
from typing import Any

import pytest

from extsloader.core.ceiling import DENIED
from extsloader.model.machine import Machine
from extsloader.model.plan import MountKind
from extsloader.model.reasons import Code
from tests.fakes.bundles import (
    DEFAULT,
    IMAGE,
    MODEST,
    NEW,
    ROOTFS,
    TRUSTED,
    bind,
    good,
    linux,
    refused,
)
from tests.fakes.bundles import process as in_config

pytestmark = pytest.mark.hostile


ALL = Machine(
    arch="amd64", capabilities=frozenset({"CAP_SYS_ADMIN", "CAP_CHOWN"}), min_oom_score_adj=-1000
)


def process(**more: object) -> dict[str, Any]:
    return {"process": in_config(**more)["process"]}


EXCESSES = [
    pytest.param({"linux": {"namespaces": NEW[:1]}}, "pid namespace of the host", id="H131-host"),
    pytest.param(
        {"linux": {"namespaces": [*NEW, {"type": "network", "path": "/proc/1/ns/net"}]}},
        "network namespace at '/proc/1/ns/net'",
        id="H131-path",
    ),
    pytest.param(bind("/"), "bind of '/', writable", id="H132-root"),
    pytest.param(bind("/run/extsloader", "ro"), "bind of '/run/extsloader'", id="H132-agent"),
    pytest.param(
        bind("/run/docker.sock"), "bind of '/run/docker.sock', writable", id="H132-docker"
    ),
    pytest.param(
        bind("/containers/services/zeta/lower", destination="/dev"),
        "mount over '/dev'",
        id="H135-dev",
    ),
    pytest.param(
        bind("/containers/services/zeta/lower", destination="/"),
        "mount over '/'",
        id="H132-over-root",
    ),
    pytest.param(bind("/dev/sda"), "bind of '/dev/sda', writable", id="H132-disk"),
    pytest.param(bind("/etc/hosts"), "bind of '/etc/hosts', writable", id="H132-writable"),
    pytest.param(
        bind("/etc/hosts", "ro", "rshared"), "rshared mount at '/x'", id="H132-propagation"
    ),
    pytest.param(
        bind("/etc/hosts", "ro", destination="/proc/self/x"),
        "mount over '/proc/self/x'",
        id="H132-over-proc",
    ),
    pytest.param(
        {"mounts": [{"destination": "/x", "type": "proc"}]}, "'proc' mount at '/x'", id="H132-proc"
    ),
    pytest.param(
        {"mounts": [{"destination": "/x", "type": "ext4", "source": "/dev/sda"}]},
        "'ext4' mount at '/x'",
        id="H132-disk-file-system",
    ),
    pytest.param(linux(devices=[{"path": "/dev/mem"}]), "device '/dev/mem'", id="H133-device"),
    pytest.param(
        linux(resources={"devices": [{"allow": True, "access": "rwm"}]}),
        "access to devices",
        id="H133-all",
    ),
    pytest.param(
        process(capabilities={"ambient": ["CAP_SYS_ADMIN"]}),
        "capability CAP_SYS_ADMIN",
        id="H134-ambient",
    ),
    pytest.param(
        process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**63}]),
        f"RLIMIT_NOFILE {2**63}, at most 1048576",
        id="H142-rlimit",
    ),
    pytest.param(process(oomScoreAdj=-1000), "oom score -1000, at least 0", id="H142-oom"),
    pytest.param(
        linux(sysctl={"kernel.core_pattern": "|/x"}),
        "sysctl 'kernel.core_pattern'",
        id="H142-sysctl",
    ),
    pytest.param(
        linux(rootfsPropagation="shared"), "root propagation 'shared'", id="H142-propagation"
    ),
]


@pytest.mark.parametrize(("asked", "sentence"), EXCESSES)
def test_what_goes_beyond_is_named(asked: dict[str, Any], sentence: str) -> None:
    problem = refused(MODEST | asked, machine=ALL, settings=DEFAULT)
    assert problem.code is Code.BUNDLE
    assert problem.message == (
        f"cannot grant what zeta asks for: beyond profile default: {sentence}"
    )


@pytest.mark.parametrize(("asked", "sentence"), EXCESSES)
def test_without_the_ceiling_it_would_be_granted(asked: dict[str, Any], sentence: str) -> None:
    assert sentence
    good(MODEST | asked, machine=ALL, settings=TRUSTED)


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/containers/services/zeta/rootfs", "source": "/", "options": ["bind"]},
        {"destination": "x", "source": "/persist", "options": ["bind"]},
        {"destination": "/run/x", "type": "tmpfs"},
        {"destination": "x", "type": "debugfs"},
        {"destination": "x", "type": "overlay", "options": ["lowerdir=/etc"]},
        {"destination": "x", "type": "overlay", "options": ["ro,lowerdir=/etc"]},
        {"destination": "x", "type": "overlay", "options": ["upperdir=/persist/x"]},
    ],
)
def test_h132_runtime_json_is_no_way_around(mount: dict[str, Any]) -> None:
    assert "host" in refused(MODEST, {"mounts": [mount]}, settings=DEFAULT).message


@pytest.mark.parametrize("option", ["dev", "suid", "redirect_dir=on", "lowerdir+=/etc"])
def test_h119_runtime_json_lifts_no_guard_of_a_mount(option: str) -> None:
    layers = "lowerdir=/containers/services/zeta/lower"
    mount = {"destination": "x", "type": "overlay", "options": [layers, option]}
    message = refused(MODEST, {"mounts": [mount]}, settings=DEFAULT).message
    assert message.endswith(f"option '{option}' for the mount at '{ROOTFS}/x'")


def test_h135_h141_seccomp_masks_and_no_new_privileges_are_ours() -> None:
    theirs = {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}}
    spec = json.loads(good(MODEST | linux(**theirs), settings=DEFAULT).spec)
    assert "listenerPath" not in spec["linux"]["seccomp"]
    assert set(DENIED) >= {"keyctl", "mount", "unshare", "bpf"}
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert "/proc/sys" in spec["linux"]["readonlyPaths"]
    assert spec["process"]["noNewPrivileges"]
    assert spec["mounts"][0]["destination"] == "/dev"
    assert spec["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert "seccomp" not in json.loads(good(MODEST).spec)["linux"]


def test_h143_places_that_must_be_real_directories_are_checked() -> None:
    volume = {
        "destination": "/v",
        "source": "/containers/volumes/v/merged",
        "options": ["bind", "ro"],
    }
    asked = MODEST | process(cwd="/v/x") | {"mounts": [{"destination": "/a/b"}, volume]}
    asked["mounts"][0]["type"] = "tmpfs"
    (step,) = (s for s in good(asked, settings=DEFAULT).mounts if s.kind is MountKind.CHECK)
    assert step.options[0] == f"{ROOTFS}/dev/"
    lower = f"{IMAGE}/containers/volumes/v/lower"
    assert step.options[-4:] == (f"{ROOTFS}/a/b", f"{ROOTFS}/v", lower, f"{lower}/x")


def test_h135_the_image_has_no_say_in_what_is_in_dev() -> None:
    theirs = {"destination": "/dev", "type": "tmpfs", "options": ["tmpcopyup"]}
    mounts = json.loads(good(MODEST | {"mounts": [theirs]}, settings=DEFAULT).spec)["mounts"]
    assert [mount["destination"] for mount in mounts] == ["/dev"]
    assert "tmpcopyup" not in mounts[0]["options"]
