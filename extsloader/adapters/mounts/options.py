"""fstab-style options, split as LinuxKit's `service` and util-linux split them (mount(8))."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from extsloader.adapters.mounts import syscalls as sys
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_SET = {
    "bind": sys.MS_BIND,
    "dirsync": sys.MS_DIRSYNC,
    "mand": sys.MS_MANDLOCK,
    "noatime": sys.MS_NOATIME,
    "nodev": sys.MS_NODEV,
    "nodiratime": sys.MS_NODIRATIME,
    "noexec": sys.MS_NOEXEC,
    "nosuid": sys.MS_NOSUID,
    "rbind": sys.MS_BIND | sys.MS_REC,
    "relatime": sys.MS_RELATIME,
    "remount": sys.MS_REMOUNT,
    "ro": sys.MS_RDONLY,
    "strictatime": sys.MS_STRICTATIME,
    "sync": sys.MS_SYNCHRONOUS,
}
_CLEAR = {
    "async": sys.MS_SYNCHRONOUS,
    "atime": sys.MS_NOATIME,
    "defaults": 0,
    "dev": sys.MS_NODEV,
    "diratime": sys.MS_NODIRATIME,
    "exec": sys.MS_NOEXEC,
    "nomand": sys.MS_MANDLOCK,
    "norelatime": sys.MS_RELATIME,
    "nostrictatime": sys.MS_STRICTATIME,
    "rw": sys.MS_RDONLY,
    "suid": sys.MS_NOSUID,
}
_PROPAGATION = {
    "private": sys.MS_PRIVATE,
    "shared": sys.MS_SHARED,
    "slave": sys.MS_SLAVE,
    "unbindable": sys.MS_UNBINDABLE,
}
# LinuxKit hands the recursive forms to the file system, which refuses them; the OCI runtime
# specification has them, and services are written against both.
_PROPAGATION |= {f"r{name}": flag | sys.MS_REC for name, flag in _PROPAGATION.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What mount(2) wants to be told apart."""

    flags: int = 0
    cleared: int = 0  # flags that were switched off by name, e.g. by "rw"
    propagation: tuple[int, ...] = ()  # each needs a call of its own (mount(2))
    data: str = ""


def split(options: Iterable[str]) -> Options:
    """Tell flags, propagation and file-system data apart; a later option wins.

    Raises MachineError(E_MOUNT) for data that mount(2) would cut off: it copies one page.
    """
    flags = cleared = 0
    propagation = []
    data = []
    for option in options:
        if option in _SET:
            flags, cleared = flags | _SET[option], cleared & ~_SET[option]
        elif option in _CLEAR:
            flags, cleared = flags & ~_CLEAR[option], cleared | _CLEAR[option]
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        else:
            data.append(option)
    text = ",".join(data)
    limit = os.sysconf("SC_PAGE_SIZE") - 1
    if len(os.fsencode(text)) > limit:
        raise MachineError(
            Code.MOUNT,
            "mount with such long options",
            f"expected at most {limit} bytes, got {len(os.fsencode(text))}",
            "use fewer lower directories or shorter paths",
        )
    return Options(flags=flags, cleared=cleared, propagation=tuple(propagation), data=text)
