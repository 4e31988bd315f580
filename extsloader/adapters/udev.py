"""Block devices, by the kernel's own uevents and by /sys.

A uevent is only a hint to look at one device again; what is reported was read in /sys. So lost
events cost a listing, and forged ones a look: libudev drops what a process sends to this socket
(it wants the kernel as sender, CVE-2009-1185), and a removal that root lets the kernel send can at
worst hide a device until its next event or listing.

No udevd is needed. Properties of udevd's database are not used: they come from a second probing
of the same untrusted bytes in another process.
"""

import asyncio
import os
import re
import socket
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pyudev

from extsloader.model.errors import MachineError
from extsloader.model.events import EventsLost, SourceGone, SourceSeen
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind, device_generation
from extsloader.ports.machine import Emit

BUDGET = 256
"""Events that a callback takes at most, in 3 to 5 ms; the rest is there when it comes again."""

RECEIVE_BUFFER = 64 << 20
"""Bytes for waiting uevents, each of which the kernel counts with 832 and more."""

SECTOR = 512
"""/sys counts in these, whatever the disk's own sector is (Documentation/ABI, sysfs-block)."""

_NAME = re.compile(r"[A-Za-z0-9][\w.:+-]*(![A-Za-z0-9][\w.:+-]*)*", re.ASCII)


class UdevSources:
    """Every block device that has a medium in it; partitions and whole disks alike."""

    provider = "udev"

    def __init__(self, sysfs: str = "/sys") -> None:
        self._directory = f"{sysfs}/class/block"
        self._open = ExitStack()

    def start(self, emit: Emit) -> None:
        """Begin to report on the running loop, before the first listing. Raises MachineError."""
        try:
            monitor, control = open_monitor()
        except (OSError, ImportError) as error:  # pyudev loads libudev.so when it is first used
            raise _cannot("watch block devices", error) from error
        self._open.enter_context(control)
        loop = asyncio.get_running_loop()
        loop.add_reader(control, partial(self._on_readable, monitor, control, emit))
        self._open.callback(loop.remove_reader, control)

    def list_sources(self) -> tuple[Source, ...]:
        """All devices with a medium. Raises MachineError."""
        try:
            names = sorted(entry.name for entry in Path(self._directory).iterdir())
        except OSError as error:
            raise _cannot("list block devices", error) from error
        found = (read_source(self._directory, name) for name in names if _NAME.fullmatch(name))
        return tuple(source for source in found if source is not None)

    def close(self) -> None:
        """Stop reporting and free the descriptors."""
        self._open.close()

    def _on_readable(self, monitor: pyudev.Monitor, control: socket.socket, emit: Emit) -> None:
        actions, lost = _drain(monitor, control)
        for name, action in actions.items():
            if _NAME.fullmatch(name):
                emit(self._look(name, action))
        if lost:
            emit(EventsLost(self.provider))

    def _look(self, name: str, action: str) -> SourceSeen | SourceGone:
        # "remove" is sent while the partition's files in /sys are still there (device_del()).
        source = None if action == "remove" else read_source(self._directory, name)
        return SourceSeen(source) if source else SourceGone(_node(name))


def open_monitor() -> tuple[pyudev.Monitor, socket.socket]:
    """Open the kernel's uevents of block devices, and the same socket once more for its options.

    Raises OSError, and ImportError where there is no libudev.
    """
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
    monitor.filter_by("block")
    monitor.start()
    control = socket.socket(fileno=os.dup(monitor.fileno()))
    # libudev of systemd asks for 256 MiB itself; setting less would shrink it.
    if control.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < RECEIVE_BUFFER:
        with suppress(OSError):  # without CAP_NET_ADMIN there are more overruns, which we survive
            monitor.set_receive_buffer_size(RECEIVE_BUFFER)
    return monitor, control


def _drain(monitor: pyudev.Monitor, control: socket.socket) -> tuple[dict[str, str], bool]:
    """Take what waits, the last action for each device; and whether the kernel lost events."""
    actions: dict[str, str] = {}
    lost = False
    for _ in range(BUDGET):
        try:
            device = monitor.poll(timeout=0)
        except (OSError, ValueError, MemoryError):
            # pyudev makes the last two of EINVAL, a malformed message, and ENOMEM. After an
            # overrun it fails for ever, and without an errno: poll(2) says POLLERR until somebody
            # fetches the error.
            control.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            lost = True
            continue
        if device is None:
            break
        # Not sys_name, in which libudev puts "/" for "!".
        actions[device.device_path.rpartition("/")[2]] = device.action
    return actions, lost


def read_source(directory: str, name: str) -> Source | None:
    """Read in /sys/class/block what a device is; None when it is gone or has no medium."""
    path = f"{directory}/{name}"
    try:
        partition = int(_read(f"{path}/partition", default="0"))
        disk = f"{path}/.." if partition else path  # the kernel follows the link first
        devno = _read(f"{path}/dev")
        diskseq = _read(f"{disk}/diskseq", default="")
        source = Source(
            id=SourceId(_node(name), device_generation(diskseq, partition, devno)),
            kind=SourceKind.DEVICE,
            size=int(_read(f"{path}/size")) * SECTOR,
            removable=_read(f"{disk}/removable") == "1",
            devno=devno,
            disk=_node(Path(path).readlink().parts[-2]) if partition else "",
            partition=partition,
            partition_label=_read_partition_label(path) if partition else "",
            partitioned=not partition and any(Path(path).glob("*/partition")),
            backing_file=_find_backing(path),
        )
    except (OSError, ValueError):  # it goes while it is read; what is left of it may be empty
        return None
    return source if source.size else None


def _read_partition_label(path: str) -> str:
    """The kernel's own reading of a GPT; it says nothing about partitions that were set by hand."""
    lines = _read(f"{path}/uevent", default="").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith("PARTNAME=")), "")


def _find_backing(path: str) -> str:
    """The file of a loop device, or of one that a mapping such as dm-verity lies on."""
    for place in (path, *sorted(map(str, Path(path, "slaves").glob("*")))):
        if file := _read(f"{place}/loop/backing_file", default=""):
            return file
    return ""


def _read(path: str, *, default: str | None = None) -> str:
    """One attribute, without its line end. `default` is for those that not every device has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if default is None:
            raise
        return default
    try:
        return os.read(descriptor, 4096).decode("utf-8", "replace").removesuffix("\n")
    finally:
        os.close(descriptor)


def _node(name: str) -> str:
    """The kernel writes "cciss/c0d0" as "cciss!c0d0" in /sys (device_get_devnode())."""
    return "/dev/" + name.replace("!", "/")


def _cannot(stage: str, error: OSError | ImportError) -> MachineError:
    reason = getattr(error, "strerror", None) or str(error)
    return MachineError(Code.IO, stage, reason.lower())
