"""Byte code of the Python files in a root file system, made by the interpreter that is in it.

The interpreter runs from a scratch directory through its own dynamic loader, so this needs neither
root nor a chroot. Byte code is not checked against its source (PEP 552): the image is read-only.
"""

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile

from extsloader.imagebuild.debian.wheels import SITE
from extsloader.imagebuild.tools import run_tool
from extsloader.imagebuild.tree import Extent, Kind, Node, Tree, read_content
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_JOBS = 2
_LIBRARY = re.compile(r"usr/lib/[^/]+-linux-gnu/[^/]+\.so[^/]*")
_LOADER = re.compile(r"usr/lib/[^/]+-linux-gnu/ld-linux-[^/]+")

_PROGRAM = """\
from py_compile import PycInvalidationMode, compile
import sys
for line in sys.stdin:
    path = line.rstrip()
    compile(f'{sys.argv[1]}/{path}', dfile=f'/{path}', doraise=True,
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
"""


def make_bytecode(tree: Mapping[str, Node], python: str, scratch: Path) -> Tree:
    """Byte code for the standard library of `python` (such as 3.11) and for all projects.

    Raises MachineError, also for a file that is not valid Python: it is not meant to be imported.
    """
    places = (f"usr/lib/python{python}/", f"{SITE}/")
    program = f"usr/bin/python{python}"
    root = scratch / "python"
    loader = next(filter(_LOADER.fullmatch, sorted(tree)), None)
    if loader is None or program not in tree:
        raise MachineError(Code.IO, "make byte code", f"the image has no {program} or no libc6")
    needed = [
        path
        for path in tree
        if path == program or path.startswith(places) or _LIBRARY.fullmatch(path)
    ]
    _extract({path: tree[path] for path in needed}, root)
    sources = [
        path
        for path in sorted(needed)
        if path.startswith(places) and path.endswith(".py") and tree[path].kind is Kind.FILE
    ]
    with ThreadPoolExecutor(_JOBS) as pool:
        # Each interpreter gets the same files in the same order in every build: byte code may
        # depend on which strings the interpreter has met before.
        shares = [sources[job::_JOBS] for job in range(_JOBS)]
        list(pool.map(lambda share: _compile(share, root, loader, program), shares))
    return _collect(root)


def _extract(tree: Mapping[str, Node], root: Path) -> None:
    for path, node in tree.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if node.kind is Kind.FILE:
            place.write_bytes(read_content(node))
            place.chmod(0o755)
        elif node.kind is Kind.LINK and "/" not in node.target:  # no link leads out of scratch
            place.symlink_to(node.target)


def _compile(paths: Iterable[str], root: Path, loader: str, program: str) -> None:
    libraries = (root / loader).parent
    with TemporaryFile() as lines:
        lines.write("".join(f"{path}\n" for path in paths).encode())
        lines.seek(0)
        run_tool(
            # No variable of ours reaches it, nor does it look for more than its library.
            ["env", "-i", "PYTHONHASHSEED=0",
             f"{root / loader}", "--library-path", f"{libraries}",
             f"{root / program}", "-B", "-P", "-s", "-S", "-c", _PROGRAM, f"{root}"],
            "make byte code", stdin=lines, hint="leave the file out with `prune`",
        )  # fmt: skip


def _collect(root: Path) -> Tree:
    return {
        path.relative_to(root).as_posix(): Node(
            kind=Kind.FILE, mode=0o644, content=Extent(path, 0, path.stat().st_size)
        )
        for path in root.rglob("__pycache__/*.pyc")
    }
