"""What is big in an image, for builds that hit the limit of the device's partition."""

from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from extsloader.imagebuild.steps import name_whole
from extsloader.imagebuild.tree import Kind, Node, read_tar
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes of a text such as `300M`. Raises ArgumentTypeError."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in "KMG" else (text, "")
    if not number.isdecimal():
        raise ArgumentTypeError(f"expected a size such as 300M, got {text!r}")
    return int(number) * _UNITS[unit]


def measure(tree: Mapping[str, Node]) -> Counter[str]:
    """Bytes of each container, and of each directory two levels deep elsewhere.

    Before compression, which a file shares with others; a file with two names counts once.
    """
    found: Counter[str] = Counter()
    seen: set[int] = set()
    for path, node in sorted(tree.items()):
        if node.kind is Kind.FILE and id(node) not in seen:
            seen.add(id(node))
            found[_group(path)] += len(node.content)
    return found


def _group(path: str) -> str:
    parts = path.split("/")[:-1]
    return "/".join(parts[: 3 if parts[:1] == ["containers"] else 4]) or "/"


def describe(sizes: Counter[str], top: int = 10) -> Iterable[str]:
    """One line for each of the biggest parts."""
    return (f"{size / 1e6:8.1f} MB  {part}" for part, size in sizes.most_common(top))


def check_limit(image: Path, limit: int, tar: Path) -> None:
    """Raise MachineError with the biggest parts of `tar` if the image is larger than the limit."""
    size = image.stat().st_size
    if limit and size > limit:
        parts = "".join(f"\n  {line}" for line in describe(measure(read_tar(tar))))
        raise MachineError(
            Code.SIZE,
            f"make {name_whole(image)}",
            f"expected at most {limit} bytes, got {size}; biggest before compression:{parts}",
            "move services to the pkgs image",
        )
