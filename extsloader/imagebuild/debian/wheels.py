"""Python projects in a root file system: fetched by pip with locked hashes, unpacked by us.

Nothing of them runs here: wheels are zip archives with a known layout (PyPA's "Binary distribution
format"). Projects that are published as source only are unpacked too, if they are plain Python.
"""

import hashlib
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zipfile import ZipFile

from extsloader.imagebuild.debian.packages import Deb
from extsloader.imagebuild.tools import run_tool
from extsloader.imagebuild.tree import Extent, Kind, Node, Tree, make_inside, read_content
from extsloader.model.errors import MachineError, SettingsError
from extsloader.model.reasons import Code

SITE = "usr/lib/python3/dist-packages"
"""On sys.path of Debian's own interpreter (Debian Python Policy, "Module Path")."""

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_INTERPRETER = re.compile(r"libpython(3\.\d+)-stdlib")
_GLIBC = re.compile(r"2\.(\d+)")
_OLDEST_GLIBC = 17  # that of manylinux2014 (PEP 599)
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_COMPILED = (".c", ".cc", ".cpp", ".pyx", ".rs")
_UNUSED = ("RECORD", "WHEEL")
"""Files about the installation, not the project: Debian's packages have none either."""

_SCRIPT = """\
#!/usr/bin/python3 -I
import sys

from {module} import {name}

sys.exit({call}())
"""


@dataclass(frozen=True, slots=True, order=True)
class Wheel:
    """One archive of a Python project, in the cache; `sha256` has been checked."""

    name: str
    version: str
    sha256: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What wheels must fit: the interpreter and the C library that are in the image."""

    python: str  # such as 3.11
    glibc: int  # the 36 of 2.36
    architecture: str  # Debian's name

    @property
    def platforms(self) -> list[str]:
        """Platform tags, newest first (PEP 600). Raises SettingsError."""
        machine = _MACHINES.get(self.architecture)
        if machine is None:
            raise SettingsError(
                (f"cannot choose wheels for {self.architecture}: only for amd64, arm64",)
            )
        minors = range(self.glibc, _OLDEST_GLIBC - 1, -1)
        return [*(f"manylinux_2_{minor}_{machine}" for minor in minors), f"manylinux2014_{machine}"]


def find_target(debs: Iterable[Deb], architecture: str) -> Target:
    """Read the versions of interpreter and C library off the packages. Raises SettingsError."""
    versions = {deb.package: deb.version for deb in debs}
    pythons = [match[1] for name in versions if (match := _INTERPRETER.fullmatch(name))]
    glibc = _GLIBC.match(versions.get("libc6", ""))
    if len(pythons) != 1 or not glibc:
        problem = "expected libc6 and one libpython3.N-stdlib among the packages"
        raise SettingsError((f"cannot use `python` in a recipe: {problem}",))
    return Target(python=pythons[0], glibc=int(glibc[1]), architecture=architecture)


def fetch_wheels(
    requirements: Path,
    sources: Sequence[str],
    target: Target,
    cache: Path,
    *,
    offline: bool = False,
) -> tuple[Wheel, ...]:
    """The archives that a requirements file names, from the cache or else by pip.

    Offline they are none unless the cache has them.

    Raises SettingsError for the file, MachineError(E_IO, E_DIGEST) for what arrived.
    """
    try:
        text = requirements.read_text()
    except OSError as error:
        reason = str(error.strerror).lower()
        raise SettingsError((f"cannot read {requirements}: {reason}",)) from error
    key = hashlib.sha256(repr((text, sorted(sources), target)).encode()).hexdigest()[:16]
    directory = cache / f"{requirements.stem}-{target.architecture}.{key}"
    if not directory.exists():
        if offline:
            return ()
        with _unfinished(directory) as incoming:
            _download(requirements, sources, target, incoming)
    known = set(_HASH.findall(text))
    return tuple(sorted(_check(path, known) for path in directory.iterdir()))


@contextmanager
def _unfinished(directory: Path) -> Iterator[Path]:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="incoming-") as incoming:
        whole = Path(incoming) / "whole"
        whole.mkdir()
        yield whole
        whole.rename(directory)


def _download(requirements: Path, sources: Sequence[str], target: Target, directory: Path) -> None:
    run_tool(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps",
            "--only-binary=:all:", *(f"--no-binary={name}" for name in sources),
            # Else pip installs a project's build tools, whose hashes nobody has checked.
            "--no-build-isolation",
            "--implementation=cp", f"--python-version={target.python}",
            f"--abi=cp{target.python.replace('.', '')}",
            *(f"--platform={tag}" for tag in target.platforms),
            f"--dest={directory}", f"--requirement={requirements}",
        ],
        f"download the Python projects of {requirements}",
        hint="check the network; a project without a wheel belongs in `python.sources`",
    )  # fmt: skip


def _check(path: Path, known: set[str]) -> Wheel:
    digest = _digest(path)
    if digest not in known:
        raise MachineError(
            Code.DIGEST, f"use {path.name}", f"its SHA-256 {digest} is not in the requirements",
            f"delete {path.parent}",
        )  # fmt: skip
    return _name(path, digest)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(path: Path, digest: str) -> Wheel:
    stem = path.name.removesuffix(".tar.gz")
    if stem != path.name:
        name, _, version = stem.rpartition("-")
    else:
        name, version = path.name.split("-")[:2]
    return Wheel(name, version, digest, path)


def build_project(project: Path, cache: Path) -> Wheel:
    """Build the wheel of a source tree, reproducibly. Raises MachineError."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="incoming-") as incoming:
        run_tool(
            # Times in a zip archive begin with 1980.
            ["env", "SOURCE_DATE_EPOCH=315532800",
             sys.executable, "-m", "flit_core.wheel", "--outdir", incoming, str(project)],
            f"build the Python project in {project}", hint="pip install flit_core",
        )  # fmt: skip
        (built,) = Path(incoming).iterdir()
        path = cache / built.name
        built.replace(path)
    return _name(path, _digest(path))


def unpack_wheels(wheels: Iterable[Wheel], scratch: Path) -> Tree:
    """All files of the projects and a script for each of their commands. Raises MachineError."""
    tree: Tree = {}
    for wheel in wheels:
        if wheel.path.suffix == ".whl":
            tree |= _unpack_wheel(wheel, scratch)
        else:
            tree |= _unpack_source(wheel, scratch)
    return tree | _make_scripts(tree)


def _unpack_wheel(wheel: Wheel, scratch: Path) -> Tree:
    spool = scratch / f"{wheel.path.name}.files"
    tree: Tree = {}
    with ZipFile(wheel.path) as archive, spool.open("wb") as out:
        for member in archive.infolist():
            if (place := _place(member.filename, wheel)) and not member.is_dir():
                with archive.open(member) as file:
                    tree[place] = _keep(file, out)
    return tree


def _place(name: str, wheel: Wheel) -> str:
    """Where a wheel's file goes; "" for nowhere."""
    path = make_inside(name, wheel.path.name)
    top, _, rest = path.partition("/")
    if top.endswith(".dist-info") and rest in _UNUSED:
        return ""
    if top.endswith(".data"):
        kind, _, path = rest.partition("/")
        if kind not in ("purelib", "platlib"):
            _refuse(wheel, f"it has files for {kind}, which is not supported")
    return f"{SITE}/{path}"


def _unpack_source(wheel: Wheel, scratch: Path) -> Tree:
    """A source archive by what setuptools wrote into it: the names of its modules, its metadata."""
    spool = scratch / f"{wheel.path.name}.files"
    files: Tree = {}
    with tarfile.open(wheel.path) as archive, spool.open("wb") as out:
        for member in archive:
            path = make_inside(member.name, wheel.path.name).partition("/")[2]
            if path.endswith(_COMPILED):
                _refuse(wheel, f"it needs a compiler for {path}")
            if (file := archive.extractfile(member)) is not None:
                files[path] = _keep(file, out)
    egg = f"{wheel.name}.egg-info"
    if f"{egg}/top_level.txt" not in files:
        _refuse(wheel, f"expected {egg}/top_level.txt")
    modules = read_content(files[f"{egg}/top_level.txt"]).decode().split()
    tree = {f"{SITE}/{path}": node for path, node in files.items() if _is_of(path, modules)}
    info = f"{SITE}/{wheel.name}-{wheel.version}.dist-info"
    tree |= {f"{info}/METADATA": files[f"{egg}/PKG-INFO"]}
    if f"{egg}/entry_points.txt" in files:
        tree |= {f"{info}/entry_points.txt": files[f"{egg}/entry_points.txt"]}
    return tree


def _is_of(path: str, modules: Sequence[str]) -> bool:
    return any(path == f"{module}.py" or path.startswith(f"{module}/") for module in modules)


def _keep(file: IO[bytes], out: IO[bytes]) -> Node:
    start = out.tell()
    shutil.copyfileobj(file, out)
    extent = Extent(Path(out.name), start, out.tell() - start)
    return Node(kind=Kind.FILE, mode=0o644, content=extent)


def _refuse(wheel: Wheel, reason: str) -> None:
    raise MachineError(Code.IO, f"unpack {wheel.path.name}", reason)


def _make_scripts(tree: Tree) -> Tree:
    return {
        f"usr/bin/{command.strip()}": Node(kind=Kind.FILE, content=_write_script(target))
        for path, node in tree.items()
        if path.endswith(".dist-info/entry_points.txt")
        for command, target in _read_commands(read_content(node).decode())
    }


def _read_commands(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip()
        elif section == "[console_scripts]" and "=" in line:
            command, _, target = line.partition("=")
            yield command, target


def _write_script(target: str) -> bytes:
    """What calls an entry point such as `package.module:main`."""
    module, _, call = target.partition("[")[0].strip().partition(":")
    return _SCRIPT.format(module=module, name=call.partition(".")[0], call=call).encode()
