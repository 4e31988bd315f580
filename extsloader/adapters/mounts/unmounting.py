"""Unmounting, who stands in its way, and what an earlier process left."""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from extsloader.adapters.mounts import mountinfo
from extsloader.adapters.mounts.directories import remove_empty
from extsloader.adapters.mounts.mountinfo import Mount, is_below
from extsloader.adapters.mounts.reasons import in_words
from extsloader.adapters.mounts.syscalls import MS_PRIVATE, by_descriptor, mount, opened, umount
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_MOST_HOLDERS: Final = 5  # enough to act on


def _uses(process: Path) -> Iterator[str]:
    for link in (process / "cwd", process / "root", process / "exe", *process.glob("fd/*")):
        with suppress(OSError):
            yield str(link.readlink())


def _holders(target: str) -> list[str]:
    """Processes with a working directory, program or open file there (mapped files left out)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(is_below(path, target) for path in _uses(process)):
                name = (process / "comm").read_text().strip()
                found.append(f"process {process.name} ({name})")
    return found[:_MOST_HOLDERS]


def unmount(target: str) -> None:
    """Unmount what is on top at this path. Raises MachineError(E_MOUNT) that names the holders."""
    parent, name = os.path.split(target)
    try:
        # Through the parent's descriptor, because one on the mount itself would keep it busy.
        with opened(parent, os.O_PATH | os.O_DIRECTORY) as descriptor:
            umount(f"{by_descriptor(descriptor)}/{name}")
    except OSError as error:
        holders = ", ".join(_holders(target))
        reason = in_words(error) + (f" by {holders}" if holders else "")
        raise MachineError(
            Code.MOUNT, f"unmount {target}", reason, "end what uses it, then try again"
        ) from error


def unmount_all(mounts: tuple[Mount, ...], run: str) -> None:
    """Unmount in the given order, going on after a failure. Raises MachineError for all of them."""
    if len(mounts) > 1:
        # A recursive bind of shared mounts would unmount its originals along with its copies
        # (Documentation/filesystems/sharedsubtree.rst): cut the tie first.
        for one in mounts:
            with suppress(OSError), opened(one.target) as descriptor:
                mount(None, by_descriptor(descriptor), None, MS_PRIVATE)
    failures = []
    for one in mounts:
        try:
            unmount(one.target)
        except MachineError as error:
            failures.append(error)
        else:
            remove_empty(run, one.target)
    raise_all(failures)


def raise_all(failures: list[MachineError]) -> None:
    """Raise several failures as one; nothing for none."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        text = "; ".join(error.problem.message for error in failures)
        raise MachineError(Code.MOUNT, "undo all mounts", text, failures[0].problem.hint)


def leftovers(prefix: str, keep: Collection[str] = ()) -> tuple[Mount, ...]:
    """Mounts below a path in the order of undoing, without those that `keep` needs or holds."""

    def kept(target: str) -> bool:
        return any(is_below(target, path) or is_below(path, target) for path in keep)

    found = mountinfo.undo_order(mountinfo.read(prefix), prefix)
    return tuple(one for one in found if one.target != prefix and not kept(one.target))


def sweep(prefix: str, keep: Collection[str] = ()) -> tuple[str, ...]:
    """Undo all `leftovers` and return their targets; loop devices go with their last mount.

    Raises MachineError(E_MOUNT) for those that stay, after all others are gone.
    """
    found = leftovers(prefix, keep)
    unmount_all(found, prefix)
    return tuple(one.target for one in found)
