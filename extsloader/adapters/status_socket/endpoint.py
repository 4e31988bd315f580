"""The socket in the file system: who may reach it, and what may lie in its place.

The permissions of directory and socket are the access control (unix(7), "Pathname socket
ownership and permissions"), so they are right before the name appears: the socket is bound under
another name, given its owner and mode, and moved into place.
"""

import grp
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

STAGE = "open the status socket"
BACKLOG = 64
MAX_PATH = 107  # bytes: sun_path holds 108 with its final NUL (unix(7))


def open_endpoint(path: str, group: str) -> socket.socket:
    """A listening socket at `path`, for root and the members of `group` ("": root only).

    A stale socket is replaced. Raises MachineError for anything else in its place, a live
    daemon's socket included. Two daemons that start at once are kept apart by the daemon's lock.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        reason = f"{path} is longer than the {MAX_PATH} bytes that the kernel allows"
        raise MachineError(Code.PATH, STAGE, reason, "configure a shorter paths.run or --root")
    try:
        gid = grp.getgrnam(group).gr_gid if group else 0
    except KeyError:
        hint = "create the group or change socket_group"
        raise MachineError(Code.PATH, STAGE, f"there is no group {group!r}", hint) from None
    try:
        _prepare_directory(Path(path).parent, gid)
        _refuse_occupied(path)
        return _listen(path, gid)
    except OSError as error:
        raise MachineError(Code.IO, STAGE, f"{path}: {error.strerror}") from error


def remove_endpoint(path: str, identity: tuple[int, int]) -> None:
    """Unlink the socket if it is still the one with this device and inode number."""
    with suppress(FileNotFoundError):
        if identify(path) == identity:
            Path(path).unlink()


def identify(path: str) -> tuple[int, int]:
    """Device and inode number. Raises FileNotFoundError."""
    info = os.lstat(path)
    return info.st_dev, info.st_ino


def _prepare_directory(directory: Path, gid: int) -> None:
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    # Not through a link: whoever planted it would choose whose permissions change.
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, os.geteuid(), gid if os.geteuid() == 0 else -1)
        os.fchmod(fd, 0o750)
    finally:
        os.close(fd)


def _refuse_occupied(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        hint = "look at what it is, and remove it"
        raise MachineError(Code.PATH, STAGE, f"{path} exists and is not a socket", hint)
    if _is_live(path):
        hint = "stop the other extsloaderd first"
        raise MachineError(Code.BUSY, STAGE, f"another daemon answers at {path}", hint)


def _is_live(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # with a full backlog connect(2) says EAGAIN: live
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
        return True


def _listen(path: str, gid: int) -> socket.socket:
    temporary = Path(path).with_name(".new")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(temporary))
        os.chown(temporary, -1, gid if os.geteuid() == 0 else -1)
        temporary.chmod(0o660)
        listener.listen(BACKLOG)
        temporary.rename(path)
    except OSError:
        listener.close()
        raise
    return listener
