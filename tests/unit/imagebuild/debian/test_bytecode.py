"""The image is made of this machine's own interpreter and the few modules that it needs."""

import marshal
import re
import subprocess
from pathlib import Path
from types import CodeType

import pytest

from extsloader.imagebuild.debian.bytecode import make_bytecode
from extsloader.imagebuild.debian.wheels import SITE
from extsloader.imagebuild.tree import Extent, Kind, Node, Tree, read_content
from extsloader.model.errors import MachineError

VERSION = "3.11"
PYTHON = Path(f"/usr/bin/python{VERSION}")
LIST_MODULES = """\
import py_compile, sys
print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', '')), sep='\\n')
"""
UNCHECKED_HASH = 0b01  # PEP 552: by hash, and never looked at again
HEADER = 16  # bytes before the code: magic number, flags, hash


@pytest.fixture(scope="module")
def image() -> Tree:
    if not PYTHON.exists():
        pytest.skip(f"no {PYTHON} here")
    libraries = re.findall(r"/\S+", ask("ldd", str(PYTHON)))
    (where,) = {Path(path).parent.name for path in libraries if path.endswith("/libc.so.6")}
    modules = ask(str(PYTHON), "-S", "-P", "-s", "-c", LIST_MODULES).split()
    places = {str(PYTHON): PYTHON} | {path: Path(path) for path in modules}
    places |= {f"/usr/lib/{where}/{Path(path).name}": Path(path) for path in libraries}
    return {place.lstrip("/"): take(path) for place, path in places.items()}


def ask(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def take(path: Path) -> Node:
    return Node(kind=Kind.FILE, content=Extent(path, 0, path.stat().st_size))


def write(text: bytes) -> Node:
    return Node(kind=Kind.FILE, mode=0o644, content=text)


def scratch(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_byte_code_is_never_checked_and_knows_the_paths_on_the_device(
    image: Tree, tmp_path: Path
) -> None:
    tree = image | {f"{SITE}/demo/__init__.py": write(b"def hello():\n    pass\n")}

    made = make_bytecode(tree, VERSION, tmp_path)

    content = read_content(made[f"{SITE}/demo/__pycache__/__init__.cpython-311.pyc"])
    code = marshal.loads(content[HEADER:])  # noqa: S302 - we have just made it
    assert int.from_bytes(content[4:8], "little") == UNCHECKED_HASH
    assert isinstance(code, CodeType)
    assert code.co_filename == f"/{SITE}/demo/__init__.py"
    assert f"usr/lib/python{VERSION}/__pycache__/py_compile.cpython-311.pyc" in made
    assert all(path.endswith(".pyc") for path in made)


def test_the_same_files_give_the_same_bytes_wherever_they_are_compiled(
    image: Tree, tmp_path: Path
) -> None:
    tree = image | {f"{SITE}/demo.py": write(b"NAMES = {'a', 'b', 'c', 'd'}\nx = 'a' in NAMES\n")}

    first, second = (
        make_bytecode(tree, VERSION, scratch(tmp_path, name)) for name in ("a", "longer")
    )

    assert {path: read_content(node) for path, node in first.items()} == {
        path: read_content(node) for path, node in second.items()
    }


def test_links_that_lead_out_of_the_image_are_not_followed(image: Tree, tmp_path: Path) -> None:
    link = Node(kind=Kind.LINK, mode=0o777, target="/etc/python3.11/sitecustomize.py")

    made = make_bytecode(image | {f"{SITE}/sitecustomize.py": link}, VERSION, tmp_path)

    assert not [path for path in made if "sitecustomize" in path]


def test_a_file_that_is_not_python_is_an_error_that_names_the_way_out(
    image: Tree, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match="SyntaxError") as caught:
        make_bytecode(image | {f"{SITE}/template.py": write(b"{{ name }} =\n")}, VERSION, tmp_path)

    assert "prune" in caught.value.problem.hint


def test_an_image_without_interpreter_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"no usr/bin/python3\.11 or no libc6"):
        make_bytecode({f"{SITE}/demo.py": write(b"")}, VERSION, tmp_path)
