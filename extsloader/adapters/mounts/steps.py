"""Single mount steps: each can be done twice and undone by another process than its doer."""

import os
from contextlib import suppress
from errno import EINVAL
from os.path import normpath
from pathlib import Path

from extsloader.adapters.mounts import mountinfo, options
from extsloader.adapters.mounts.directories import make, remove_empty
from extsloader.adapters.mounts.mountinfo import Mount, is_below
from extsloader.adapters.mounts.options import Options
from extsloader.adapters.mounts.reasons import in_words
from extsloader.adapters.mounts.syscalls import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
    by_descriptor,
    mount,
    opened,
)
from extsloader.adapters.mounts.unmounting import unmount, unmount_all
from extsloader.model.errors import MachineError
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.reasons import Code

_OVERLAY_DIRECTORIES = ("lowerdir", "upperdir", "workdir")
_KEPT_BY_BIND = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME


def do(step: MountStep, run: str) -> bool:
    """Do one step; whether anything had to be done. Raises MachineError(E_MOUNT)."""
    try:
        _refuse_odd_path(step.target)
        if step.kind is MountKind.MKDIR:
            return make(step.target)
        if step.kind is MountKind.CHECK:
            return _check(step)
        wanted = options.split(step.options)
        if wanted.flags & MS_REMOUNT:
            _mount_on(step.target, step.source, None, wanted.flags, wanted.data)
            return False  # nothing that an undo could take back
        return _mount_once(step, wanted, run)
    except OSError as error:
        remove_empty(run, step.target)
        hint = f"look at {error.filename}" if error.filename else ""
        raise MachineError(Code.MOUNT, _stage(step), in_words(error), hint) from error


def undo(step: MountStep, run: str) -> None:
    """Undo one step, if there is something to undo. Raises MachineError(E_MOUNT).

    Below our run directory everything is ours and goes, with what is mounted in it; elsewhere only
    a mount that is clearly the step's.
    """
    if step.kind is MountKind.CHECK:
        return
    if step.kind is not MountKind.MKDIR and "remount" not in step.options:
        table = mountinfo.read(step.target)
        if is_below(step.target, run):
            unmount_all(mountinfo.undo_order(table, step.target), run)
        elif found := mountinfo.top(table, step.target):
            _refuse_other(found, step)
            unmount(step.target)
    remove_empty(run, step.target)


def _check(step: MountStep) -> bool:
    """The runtime would follow a link in a root file system to the host (CVE-2026-41579)."""
    for path in step.options:
        try:
            with opened(path):
                pass
        except FileNotFoundError:
            continue  # the runtime makes it
        except OSError as error:
            raise MachineError(
                Code.BUNDLE, f"use {path}", in_words(error), "build the image anew"
            ) from error
    return False


def _mount_once(step: MountStep, wanted: Options, run: str) -> bool:
    # Nothing can be mounted on what was not there: most starts need no look at the table.
    fresh = is_below(step.target, run) and make(step.target)
    if not fresh and (found := mountinfo.top(mountinfo.read(step.target), step.target)):
        _refuse_other(found, step)
        return False
    if step.kind is MountKind.BIND or wanted.flags & MS_BIND:
        _bind(step, wanted, run)
    else:
        for value in _overlay_directories(wanted.data).values():
            for path in value.split(":"):
                _refuse_links(path, run)
        _mount_on(step.target, step.source or "none", step.fs_type, wanted.flags, wanted.data)
    try:
        _finish(step, wanted)
    except OSError:
        unmount(step.target)
        raise
    return True


def _finish(step: MountStep, wanted: Options) -> None:
    propagation = wanted.propagation
    if step.kind is MountKind.BIND or wanted.flags & MS_BIND:
        _restrict(step.target, wanted)
        # What is mounted in the copy later must not appear in the original.
        propagation = propagation or (MS_SLAVE | wanted.flags & MS_REC,)
    for flag in propagation:
        _mount_on(step.target, None, None, flag)


def _bind(step: MountStep, wanted: Options, run: str) -> None:
    _refuse_links(step.source, run)
    _mount_on(step.target, step.source, None, MS_BIND | wanted.flags & MS_REC)


def _restrict(target: str, wanted: Options) -> None:
    """Set flags on a fresh bind mount, and on those in it for `rbind`.

    The first call of a bind ignores them (mount(2)), and a remount drops those that are not named,
    such as the `nosuid` of an image: hence the old ones are named again.
    """
    if not (wanted.flags | wanted.cleared) & _KEPT_BY_BIND:
        return
    inside = mountinfo.undo_order(mountinfo.read(target), target)
    targets = {one.target for one in inside} if wanted.flags & MS_REC else {target}
    for path in targets:
        # statvfs(3) and mount(2) use the same numbers for these flags.
        old = os.statvfs(path).f_flag & _KEPT_BY_BIND & ~wanted.cleared
        _mount_on(path, None, None, MS_REMOUNT | MS_BIND | old | wanted.flags & ~MS_REC)


def _mount_on(
    target: str, source: str | None, fs_type: str | None, flags: int, data: str = ""
) -> None:
    with opened(target) as descriptor:  # refuses a link at any place of the path
        mount(source, by_descriptor(descriptor), fs_type, flags, data)


def _overlay_directories(data: str) -> dict[str, str]:
    pairs = (option.partition("=") for option in data.split(","))
    return {name: value for name, _, value in pairs if name in _OVERLAY_DIRECTORIES}


def _refuse_odd_path(path: str) -> None:
    """Paths are compared as text with each other and with the mount table."""
    if not path.startswith("/") or normpath(path) != path:
        raise OSError(EINVAL, "expected an absolute path without . and ..", path)


def _refuse_links(path: str, run: str) -> None:
    """The kernel would follow a link in an image out to the host; the host's own links are fine."""
    _refuse_odd_path(path)
    if is_below(path, run):
        with opened(path):
            pass


def _is_of(found: Mount, step: MountStep) -> bool:
    wanted = options.split(step.options)
    if step.kind is MountKind.BIND or wanted.flags & MS_BIND:
        with suppress(OSError):
            return Path(step.source).samefile(step.target)
        return False
    if (found.fs_type, found.source) != (step.fs_type, step.source or "none"):
        return False
    # Every overlay has the same source: its directories tell them apart.
    there = _overlay_directories(",".join(found.super_options))
    return _overlay_directories(wanted.data) == there


def _refuse_other(found: Mount, step: MountStep) -> None:
    if not _is_of(found, step):
        raise MachineError(
            Code.MOUNT,
            _stage(step),
            f"{found.fs_type} from {found.source} is mounted there already",
            f"unmount {step.target}, if nothing needs it",
        )


def _stage(step: MountStep) -> str:
    match step.kind:
        case MountKind.MKDIR:
            return f"make the directory {step.target}"
        case MountKind.BIND:
            return f"bind {step.source} to {step.target}"
        case MountKind.CHECK:
            return f"check {step.target}"
        case MountKind.MOUNT:
            return f"mount {step.fs_type or 'again'} on {step.target}"
