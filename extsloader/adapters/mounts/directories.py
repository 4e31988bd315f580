"""Directories that are opened, made and removed without following a single link."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from extsloader.adapters.mounts.syscalls import (
    NO_LINKS,
    RESOLVE_BENEATH,
    RESOLVE_NO_XDEV,
    opened,
)

_HERE: Final = os.O_PATH | os.O_DIRECTORY
_SAME_MOUNT: Final = NO_LINKS | RESOLVE_BENEATH | RESOLVE_NO_XDEV


def make(path: str, mode: int = 0o755) -> bool:
    """`mkdir -p`; whether anything was missing. Raises OSError, also for a link in the path."""
    with suppress(FileNotFoundError), opened(path, _HERE):
        return False
    parent, name = os.path.split(path)
    make(parent, mode)
    with opened(parent, _HERE) as descriptor, suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=descriptor)
    with opened(path, _HERE):  # a file or a link of that name is no success
        return True


def remove_empty(run: str, path: str) -> None:
    """Remove a directory if it is empty and no mount lies between it and `run`.

    A new process cannot know who made a directory. Those on the file system of our run directory
    are ours; those elsewhere, and those inside of an overlay, where removing one of the image's
    would leave a whiteout, stay. Raises nothing: what is not empty or not there is left alone.
    """
    parent, name = os.path.split(os.path.relpath(path, run))
    with (
        suppress(OSError),
        opened(run, _HERE) as root,
        opened(parent or ".", _HERE, dir_fd=root, resolve=_SAME_MOUNT) as descriptor,
    ):
        os.rmdir(name, dir_fd=descriptor)


def mountpoints(run: str) -> list[str]:
    """Where mounts of images are or were, each before the directory that it lies in."""
    patterns = ("images/*", "uppers/*", "bundles/*/*", "bundles/*")
    return [str(path) for pattern in patterns for path in Path(run).glob(pattern)]
