"""Names and paths that lead somewhere else, or only look like others."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.adapters.mounts.bundles import read_bundle
from extsloader.core.admit import refuse_probed
from extsloader.model.errors import MachineError
from extsloader.model.helper import Request
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import Filters, FsType, Superblock
from extsloader.verify.offline import verify_file
from tests.fakes import builders, bundles
from tests.hostile.judge import judge, manifest

pytestmark = pytest.mark.hostile

SERVICE = Service(name=ServiceName("web"), bundle="containers/services/web")

NAMES = [
    *(("h066", n) for n in ("", ".", "..", "-x", "x-", "a/b", "a\n", "a b", "a,b", "a:b", "a\\b")),
    *(("h066", n) for n in ("a%n", "a" * 33, "a" * 255, "a" * 4096, "a\t", "\u00e4", "$(id)")),
    *(("h067", n) for n in ("A", "\u0430", "\uff41", "a\u200db", "a\u202eb", "e\u0301", "\u00e9")),
    *(("h067", n) for n in ("\u0131", "\u212a", "\u017f")),
    *(("h068", n) for n in ("extsloader", "self", "con", "tasks", "cgroup.procs", "memory.max")),
]


@pytest.mark.parametrize(
    "name", [name for _, name in NAMES], ids=[f"{row} {name[:20]!a}" for row, name in NAMES]
)
def test_service_names(asked: Request, name: str) -> None:
    assert judge(manifest(services__0__name=name), asked) in (Code.SCHEMA, Code.DAG)
    alone = [{"name": name, "bundle": "containers/services/a"}]
    assert judge(manifest(services=alone), asked) is Code.SCHEMA


BUNDLES = [
    *(("h069", path) for path in ("", "/containers/services/a", "containers/services/..", "a")),
    *(("h069", path) for path in ("containers/services/a/../../etc", "containers//services/a")),
    *(("h069", path) for path in ("containers/services/a/", "./containers/services/a")),
    *(("h069", path) for path in ("containers/services/" + "a" * 4097, "a/" * 200 + "b")),
    *(("h069", path) for path in ("containers/services/.", "containers/services/a\n")),
    *(("h070", path) for path in ("containers/services-evil/a", "containers/servicesevil")),
    *(("h070", path) for path in ("/persist/exts-evil", "containers/services/../services-evil/a")),
]


@pytest.mark.parametrize(
    "path", [path for _, path in BUNDLES], ids=[f"{row} {p[:30]!a}" for row, p in BUNDLES]
)
def test_bundle_paths(asked: Request, path: str) -> None:
    assert judge(manifest(services__0__bundle=path), asked) is Code.PATH


def test_h069_a_nul_in_a_path(asked: Request) -> None:
    assert judge(manifest(services__0__bundle="containers/services/a\0"), asked) is Code.SCHEMA


def chain(directory: Path, length: int) -> str:
    for number in range(length):
        target = f"link{number + 1}" if number + 1 < length else "real"
        (directory / f"link{number}").symlink_to(target)
    return "link0"


@pytest.mark.parametrize(
    "target",
    [
        *("/etc", "real", "../../containers/services/real", "../../../outside", "web"),
        *("/proc/self/root", "/proc/self/cwd", "/dev/fd/3", "chain of 41"),
    ],
)
def test_h071_a_bundle_that_is_a_link(tmp_path: Path, target: str) -> None:
    directory = tmp_path / "image/containers/services"
    for place in (directory / "real", tmp_path / "outside"):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    found = chain(directory, 41) if target.startswith("chain") else target
    (directory / "web").symlink_to(found)
    with pytest.raises(MachineError) as refused:
        read_bundle(str(tmp_path / "image"), SERVICE)
    assert refused.value.problem.code is Code.BUNDLE


def test_h071_a_directory_above_the_bundle_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside/services/web").mkdir(parents=True)
    (tmp_path / "outside/services/web/config.json").write_text("{}")
    image = tmp_path / "image"
    image.mkdir()
    (image / "containers").symlink_to(tmp_path / "outside")
    assert (image / SERVICE.bundle / "config.json").read_text(), "by plain open it is read"
    with pytest.raises(MachineError) as refused:
        read_bundle(str(image), SERVICE)
    assert refused.value.problem.code is Code.BUNDLE


def test_h072_a_file_with_two_names(tmp_path: Path) -> None:
    directory = tmp_path / SERVICE.bundle
    directory.mkdir(parents=True)
    (tmp_path / "other").write_text("{}")
    os.link(tmp_path / "other", directory / "config.json")
    assert read_bundle(str(tmp_path), SERVICE).config == "{}"


LABELS = ["a\nb", "\x1b[2J", "%s%n", "$(id)", ";", "../", "x" * 255, "\udcff", "", "\u202e", "*"]


@pytest.mark.parametrize("label", LABELS)
def test_h073_a_label_is_compared_and_shown_and_nothing_else(label: str) -> None:
    def verdict(wanted: str) -> Problem | None:
        found = Superblock(fs_type=FsType.SQUASHFS, label=label, partition_label=label)
        filters = Filters(labels=(wanted,), partition_labels=(wanted,))
        return refuse_probed(builders.source(), found, filters)

    assert verdict(label) is None
    refused = verdict("PKGS")
    assert refused is not None
    assert refused.code is Code.FILTER
    assert refused.message.isprintable()
    assert len(refused.message) < 200


def test_h075_the_bytes_decide_what_a_medium_is(tmp_path: Path, asked: Request) -> None:
    path = tmp_path / "image"
    ext = bytearray(1 << 20)
    ext[1024 + 56 : 1024 + 58] = b"\x53\xef"
    path.write_bytes(ext)
    found = verify_file(str(path), asked.keys)
    assert not isinstance(found, StoredImage)
    assert found.code is Code.FS_TYPE


@pytest.mark.parametrize("name", ["LD_PRELOAD=/x", "PATH=/x", "A=B=C", "A= "])
def test_h076_variables_are_the_containers_own(name: str) -> None:
    result = bundles.plan(bundles.process(env=[name]))
    assert isinstance(result, ContainerPlan)
    assert f'"{name}"' in result.spec


@pytest.mark.parametrize(
    "env", [["=x"], [""], ["A"], ["1A=x"], ["A\0B=x"], [1], "A=1", ["A=1"] * 40_000]
)
def test_h076_variables_that_are_none_or_too_many(env: object) -> None:
    result = bundles.plan(bundles.process(env=env))
    assert isinstance(result, Problem)
    assert result.code in (Code.BUNDLE, Code.LIMIT)


@pytest.mark.parametrize("name", ["../../etc", "/etc", "shared"])
def test_h077_volumes(asked: Request, name: str) -> None:
    found = manifest(services__0__volumes=[{"name": name}], services__1__volumes=[name])
    assert judge(found, asked) is Code.SCHEMA


def test_h083_a_need_of_itself_in_another_case(asked: Request) -> None:
    for other in ("A", "\uff41", "a ", "a\u200d"):
        found = manifest(services__0__requires=[other])
        assert judge(found, replace(asked)) in (Code.SCHEMA, Code.DAG)
