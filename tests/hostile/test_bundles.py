"""Hostile bundles: what the files of an image say, row by row."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extsloader.adapters.mounts.bundles import read_bundle
from extsloader.adapters.mounts.steps import do
from extsloader.core.oci import plan_container
from extsloader.model.errors import MachineError
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Service
from extsloader.model.plan import Bundle, ContainerPlan, MountKind, MountStep
from extsloader.model.reasons import Code
from tests.fakes.bundles import (
    CONFIG,
    DIGEST,
    IMAGE,
    MACHINE,
    OWN,
    ROOTFS,
    TRUSTED,
    good,
    process,
    refused,
    spec,
)

pytestmark = pytest.mark.hostile

SERVICE = Service(name=ServiceName("web"), bundle="containers/services/web")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "image" / SERVICE.bundle / "config.json"
    path.parent.mkdir(parents=True)
    return path


def refusal(config: Path) -> str:
    with pytest.raises(MachineError) as refused:
        read_bundle(f"{config.parents[3]}", SERVICE)
    assert refused.value.problem.code is Code.BUNDLE
    return refused.value.problem.message


def test_h127_config_json_is_a_link_to_the_host(tmp_path: Path, config: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    config.symlink_to(tmp_path / "secret")
    assert config.read_text() == "{}"  # by plain open the host's file is read
    assert "a symbolic link is in the way" in refusal(config)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(os.mkfifo, "expected a regular file", id="H127-fifo"),
        pytest.param(Path.mkdir, "expected a regular file", id="H127-directory"),
        pytest.param(lambda _: None, "no such file", id="H127-missing"),
        pytest.param(
            lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 100 << 20),
            "expected at most 1048576 bytes, got 104857600",
            id="H127-100-MB",
        ),
        pytest.param(
            lambda path: os.mknod(path, 0o20600, os.makedev(1, 5)),
            "expected a regular file",
            id="H127-device",
            marks=pytest.mark.root,
        ),
    ],
)
def test_config_json_is_no_small_file(
    config: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(config)
    assert reason in refusal(config)


def test_h072_a_hard_link_within_the_image_is_a_file(config: Path) -> None:
    config.write_text("{}")
    config.with_name("twin").hardlink_to(config)
    assert read_bundle(f"{config.parents[3]}", SERVICE).config == "{}"


@pytest.mark.parametrize("kind", ["missing", "link"])
def test_h128_the_content_of_a_service_is_no_directory(tmp_path: Path, kind: str) -> None:
    lower = tmp_path / "run/lower"
    lower.parent.mkdir()
    if kind == "link":
        lower.symlink_to("/")
    step = MountStep(
        kind=MountKind.MOUNT,
        fs_type="overlay",
        target=f"{tmp_path}/run/rootfs",
        options=(f"lowerdir={lower}",),
    )
    with pytest.raises(MachineError) as refused:
        do(step, f"{tmp_path}/run")
    assert refused.value.problem.code is Code.MOUNT
    assert not (tmp_path / "run/rootfs").exists()


@pytest.mark.parametrize("path", ["/", "../..", "/etc"])
def test_h129_the_root_is_where_we_mounted_it(path: str) -> None:
    assert spec(CONFIG | {"root": {"path": path}})["root"]["path"] == ROOTFS


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststop"])
def test_h130_hooks_are_never_run(kind: str) -> None:
    hooks = {kind: [{"path": "/bin/sh"}]}
    assert "hooks are not allowed" in refused(CONFIG | {"hooks": hooks}, settings=TRUSTED).message


@pytest.mark.parametrize(
    ("asked", "code", "reason"),
    [
        pytest.param(
            {"linux": {"namespaces": [{"type": "pid"}]}},
            Code.BUNDLE,
            "must hold a new mount namespace",
            id="H131-no-mount-namespace",
        ),
        pytest.param(
            {"linux": {"namespaces": [{"type": "mount", "path": "/proc/1/ns/mnt"}]}},
            Code.BUNDLE,
            "must hold a new mount namespace",
            id="H131-mount-namespace-of-the-host",
        ),
        pytest.param(
            {"mounts": [{"destination": "/x/../../etc", "type": "tmpfs"}]},
            Code.PATH,
            "must not climb",
            id="H132-climbs",
        ),
        pytest.param(process(cwd="/proc/self/fd/7"), Code.PATH, "in /proc", id="H136-descriptor"),
        pytest.param(process(cwd="x/y"), Code.PATH, "must be an absolute path", id="H136-relative"),
        pytest.param(process(cwd="/a/../.."), Code.PATH, "must not climb", id="H136-climbs"),
        pytest.param(process(args=[]), Code.BUNDLE, "must name the program", id="H137-no-args"),
        pytest.param(process(args=[""]), Code.BUNDLE, "must name the program", id="H137-empty"),
        pytest.param(process(args=["a\0b"]), Code.BUNDLE, "holds NUL", id="H137-NUL"),
        pytest.param(process(args=["x" * 2**20]), Code.BUNDLE, "is longer than", id="H137-1-MB"),
        pytest.param(
            process(args=["x" * 2**17]), Code.LIMIT, "at most 65536 characters", id="H137-128-KB"
        ),
        pytest.param(
            process(args=["x"] * 50_000), Code.LIMIT, "at most 512", id="H137-50000-arguments"
        ),
        pytest.param(
            process(env=["A=1"] * 10_000), Code.LIMIT, "at most 512", id="H149-10000-variables"
        ),
        pytest.param(process(env=["1A=x"]), Code.BUNDLE, "must hold NAME=VALUE", id="H076-digit"),
        pytest.param(
            CONFIG | {"mounts": [{"destination": "/x"}] * 1000},
            Code.LIMIT,
            "at most 512",
            id="H149-1000-mounts",
        ),
        *(
            pytest.param(
                process(user={"uid": uid}), Code.BUNDLE, "must be between", id=f"H138-{uid}"
            )
            for uid in (-1, 2**31, 2**32, 2**32 - 1)
        ),
        pytest.param(
            process(user={"uid": "root"}), Code.BUNDLE, "must be a whole number", id="H138-name"
        ),
        pytest.param(
            process(user={"additionalGids": [1] * 50_000}),
            Code.LIMIT,
            "at most 512",
            id="H138-50000-groups",
        ),
    ],
)
def test_what_no_profile_admits(asked: dict[str, Any], code: Code, reason: str) -> None:
    problem = refused(CONFIG | asked, settings=TRUSTED)
    assert reason in problem.message
    assert problem.code is code


def linux(**more: object) -> dict[str, Any]:
    return CONFIG | {"linux": CONFIG["linux"] | more}


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        pytest.param(process(capabilities={"ambient": ["CAP_FOO"]}), "CAP_FOO", id="H134-unknown"),
        pytest.param(linux(cgroupsPath="/../../escape"), "escape", id="H139-climbs"),
        pytest.param(linux(cgroupsPath="escape.slice:a:b"), "escape", id="H139-systemd"),
        *(
            pytest.param(CONFIG | {"annotations": {key: "evil"}}, "evil", id=f"H140-{key}")
            for key in ("org.criu.config", "run.oci.hooks.stdout", "io.katacontainers.x")
        ),
        pytest.param(linux(intelRdt={"closID": "evil"}), "evil", id="H142-intelRdt"),
        pytest.param(linux(personality={"domain": "LINUX32"}), "LINUX32", id="H142-personality"),
        pytest.param(
            process(user={"uid": 1, "username": "evil"}), "evil", id="H144-name-of-a-user"
        ),
        pytest.param(
            process(terminal=True, consoleSize={"height": 1}), "height", id="H148-console"
        ),
        pytest.param(CONFIG | {"name": "other"}, "other", id="H150-other-name"),
    ],
)
def test_what_never_reaches_the_runtime(asked: dict[str, Any], word: str) -> None:
    result = good(asked, settings=TRUSTED)
    assert word not in result.spec
    assert json.loads(result.spec)["process"]["terminal"] is False
    assert result.reduced or "cgroupsPath" in str(asked)  # and that is told


def test_h147_two_services_of_one_bundle_write_to_their_own_places() -> None:
    bundle = Bundle(service=ServiceName("a"), config=json.dumps(CONFIG), runtime="")
    places = []
    for name in ("a", "b"):
        service = Service(name=ServiceName(name), bundle=OWN[1:])
        plan = plan_container(bundle, service, IMAGE, DIGEST, TRUSTED, MACHINE)
        assert isinstance(plan, ContainerPlan)
        places.append({step.target for step in plan.mounts if step.kind is MountKind.MOUNT})
    assert places[0].isdisjoint(places[1])
