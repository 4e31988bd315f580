"""The mount table, parsed by field (Documentation/filesystems/proc.rst, 3.5)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")
_ESCAPES = {ord(character): f"\\{ord(character):03o}" for character in " \t\n\\"}
"""What the kernel escapes in paths (fs/proc_namespace.c, show_mountinfo)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    id: int
    parent: int
    device: str  # "major:minor"
    root: str  # what of the file system is mounted
    target: str
    options: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]


def _unescape(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def _parse_line(line: str) -> Mount:
    # Between the sixth field and the separator lie any number of optional fields. Splitting at
    # single spaces keeps an empty source as a field of its own.
    left, _, right = line.partition(" - ")
    number, parent, device, root, target, options, *_ = left.split(" ")
    fs_type, source, super_options = right.split(" ", 2)
    return Mount(
        id=int(number),
        parent=int(parent),
        device=device,
        root=_unescape(root),
        target=_unescape(target),
        options=tuple(options.split(",")),
        fs_type=_unescape(fs_type),
        source=_unescape(source),
        super_options=tuple(_unescape(option) for option in super_options.split(",")),
    )


def parse(text: str, prefix: str = "/") -> tuple[Mount, ...]:
    """The mounts of a table at and below a path, in its order."""
    # With hundreds of mounts, taking all lines apart costs more than mounting.
    wanted = f" {prefix.translate(_ESCAPES)}"
    lines = (line for line in text.split("\n") if wanted in line)
    return tuple(found for found in map(_parse_line, lines) if is_below(found.target, prefix))


def read(prefix: str = "/") -> tuple[Mount, ...]:
    """The mounts at and below a path that this process sees now."""
    return parse(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"), prefix)


def is_below(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or lies in it, by whole names."""
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def top(mounts: Iterable[Mount], target: str) -> Mount | None:
    """The mount that a look at exactly this path shows: of a stack, the one on no other's root."""
    here = [mount for mount in mounts if mount.target == target]
    covered = {mount.parent for mount in here}
    return next((mount for mount in here if mount.id not in covered), None)


def undo_order(mounts: tuple[Mount, ...], prefix: str) -> tuple[Mount, ...]:
    """The mounts at and below a path, each before the one it stands on."""
    parents = {mount.id: mount.parent for mount in mounts}

    def depth(number: int) -> int:
        steps = 0
        # The root's parent is itself or outside of the table; ids can be reused but never loop.
        while number in parents and parents[number] != number:
            number, steps = parents[number], steps + 1
        return steps

    below = (mount for mount in mounts if is_below(mount.target, prefix))
    return tuple(sorted(below, key=lambda mount: depth(mount.id), reverse=True))
