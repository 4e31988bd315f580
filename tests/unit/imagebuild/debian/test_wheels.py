"""pip is real; what it may choose from are small archives that the tests make."""

import hashlib
import os
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from extsloader.imagebuild.debian.packages import Deb
from extsloader.imagebuild.debian.wheels import (
    SITE,
    Target,
    Wheel,
    build_project,
    fetch_wheels,
    find_target,
    unpack_wheels,
)
from extsloader.imagebuild.tree import Tree, read_content
from extsloader.model.errors import ImageRefusedError, MachineError, SettingsError

ARM = Target(python="3.11", glibc=36, architecture="arm64")
INFO = "demo-1.0.dist-info"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
COMMANDS = b"[gui_scripts]\nwindow = demo:show\n\n[console_scripts]\nDemo = demo.cli:App.run [x]\n"
PLAIN = {
    "demo/__init__.py": b"",
    f"{INFO}/METADATA": METADATA,
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/RECORD": b"",
}
SOURCE = {
    "setup.py": b"import setuptools as s\ns.setup(name='demo', version='1.0', packages=['demo'])",
    "PKG-INFO": METADATA,
    "demo.egg-info/PKG-INFO": METADATA,
    "demo.egg-info/top_level.txt": b"demo\nsingle\n",
    "demo.egg-info/entry_points.txt": COMMANDS,
    "demo/__init__.py": b"VALUE = 1\n",
    "demonstration/__init__.py": b"",
    "single.py": b"",
}


def make_wheel(directory: Path, files: Mapping[str, bytes], tag: str = "py3-none-any") -> Wheel:
    directory.mkdir(exist_ok=True)
    path = directory / f"demo-1.0-{tag}.whl"
    with ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return name_archive(path)


def make_source(directory: Path, files: Mapping[str, bytes]) -> Wheel:
    directory.mkdir(exist_ok=True)
    path = directory / "demo-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"demo-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return name_archive(path)


def name_archive(path: Path) -> Wheel:
    return Wheel("demo", "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), path)


def unpack(wheel: Wheel, tmp_path: Path) -> Tree:
    (tmp_path / "scratch").mkdir()
    return unpack_wheels([wheel], tmp_path / "scratch")


def require(tmp_path: Path, *wheels: Wheel) -> Path:
    hashes = " ".join(f"--hash=sha256:{wheel.sha256}" for wheel in wheels)
    path = tmp_path / "device.txt"
    path.write_text(f"demo==1.0 {hashes}\n")
    return path


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which pip looks for archives."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "offered"))
    return tmp_path / "offered"


def test_wheels_must_fit_the_interpreter_and_the_c_library_of_the_image() -> None:
    debs = [
        Deb("libc6", "2.36-9+deb12u10", "arm64", "a" * 64),
        Deb("libpython3.11-stdlib", "3.11.2-6", "arm64", "b" * 64),
    ]

    target = find_target(debs, "arm64")

    assert target == ARM
    assert target.platforms[0] == "manylinux_2_36_aarch64"
    assert target.platforms[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    with pytest.raises(SettingsError, match=r"expected libc6 and one libpython3\.N-stdlib"):
        find_target(debs[:1], "arm64")


def test_an_architecture_without_wheels_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot choose wheels for riscv64"):
        _ = Target(python="3.11", glibc=36, architecture="riscv64").platforms


def test_a_wheel_is_unpacked_for_debians_interpreter_with_a_script_for_each_command(
    tmp_path: Path,
) -> None:
    wheel = make_wheel(
        tmp_path,
        PLAIN | {f"{INFO}/entry_points.txt": COMMANDS, "demo-1.0.data/purelib/more.py": b"1\n"},
    )

    tree = unpack(wheel, tmp_path)

    assert set(tree) == {
        *(f"{SITE}/{name}" for name in ("demo/__init__.py", "more.py", f"{INFO}/METADATA")),
        *(f"{SITE}/{INFO}/entry_points.txt", "usr/bin/Demo"),
    }
    assert read_content(tree[f"{SITE}/more.py"]) == b"1\n"
    assert tree["usr/bin/Demo"].mode == 0o755
    lines = read_content(tree["usr/bin/Demo"]).decode().splitlines()
    assert (lines[0], lines[3], lines[5]) == (
        *("#!/usr/bin/python3 -I", "from demo.cli import App"),
        "sys.exit(App.run())",
    )


def test_a_wheel_with_files_for_other_places_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"demo-1.0.data/scripts/run": b""})

    with pytest.raises(MachineError, match="files for scripts, which is not supported"):
        unpack(wheel, tmp_path)


def test_a_wheel_whose_paths_lead_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageRefusedError, match="it holds the path"):
        unpack(make_wheel(tmp_path, {"../../evil.py": b""}), tmp_path)


def test_plain_source_is_unpacked_with_its_metadata_and_without_its_build(tmp_path: Path) -> None:
    tree = unpack(make_source(tmp_path, SOURCE), tmp_path)

    assert set(tree) == {
        *(f"{SITE}/{name}" for name in ("demo/__init__.py", "single.py", f"{INFO}/METADATA")),
        *(f"{SITE}/{INFO}/entry_points.txt", "usr/bin/Demo"),
    }
    assert read_content(tree[f"{SITE}/demo/__init__.py"]) == b"VALUE = 1\n"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (SOURCE | {"demo/_fast.pyx": b""}, "it needs a compiler for demo/_fast.pyx"),
        ({"setup.py": b""}, r"expected demo\.egg-info/top_level\.txt"),
    ],
)
def test_source_that_must_be_built_is_refused(
    files: Mapping[str, bytes], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match=reason):
        unpack(make_source(tmp_path, files), tmp_path)


def test_pip_chooses_for_the_target_and_is_asked_once(offered: Path, tmp_path: Path) -> None:
    tags = ("cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_28_aarch64")
    wheels = [make_wheel(offered, PLAIN, tag) for tag in tags]
    requirements = require(tmp_path, *wheels)

    (found,) = fetch_wheels(requirements, [], ARM, tmp_path / "cache")
    for wheel in wheels:
        wheel.path.unlink()

    assert (found.path.name, found.sha256) == (wheels[1].path.name, wheels[1].sha256)
    assert (found.name, found.version) == ("demo", "1.0")
    assert fetch_wheels(requirements, [], ARM, tmp_path / "cache") == (found,)


def test_source_is_taken_of_those_alone_that_are_named(offered: Path, tmp_path: Path) -> None:
    source = make_source(offered, SOURCE)
    requirements = require(tmp_path, source)

    with pytest.raises(MachineError, match="No matching distribution") as caught:
        fetch_wheels(requirements, [], ARM, tmp_path / "cache")
    (found,) = fetch_wheels(requirements, ["demo"], ARM, tmp_path / "cache")

    assert "python.sources" in caught.value.problem.hint
    assert (found.name, found.version, found.sha256) == ("demo", "1.0", source.sha256)


def test_an_archive_with_another_digest_is_not_used_wherever_it_comes_from(
    offered: Path, tmp_path: Path
) -> None:
    wheel = make_wheel(offered, PLAIN)
    requirements = require(tmp_path, wheel)
    (found,) = fetch_wheels(requirements, [], ARM, tmp_path / "good")
    found.path.write_bytes(b"evil")
    wheel.path.write_bytes(wheel.path.read_bytes() + b"evil")

    with pytest.raises(MachineError, match=r"E_DIGEST.*is not in the requirements"):
        fetch_wheels(requirements, [], ARM, tmp_path / "good")
    with pytest.raises(MachineError, match="cannot download"):
        fetch_wheels(requirements, [], ARM, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_missing_requirements_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*none\.txt: no such file"):
        fetch_wheels(tmp_path / "none.txt", [], ARM, tmp_path)


def test_the_project_gives_the_same_wheel_whenever_its_files_were_written(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "demo").mkdir(parents=True)
    (project / "demo/__init__.py").write_text('"""A demo."""\n')
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
        '[project]\nname = "demo"\nversion = "1.0"\ndescription = "x"\n'
    )
    first = build_project(project, tmp_path / "cache")
    os.utime(project / "demo/__init__.py", (1, 1))
    again = build_project(project, tmp_path / "cache")
    (project / "demo/more.py").touch()

    assert first == again
    assert (first.name, first.version) == ("demo", "1.0")
    assert build_project(project, tmp_path / "cache").sha256 != first.sha256
