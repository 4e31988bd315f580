"""Loop devices of our own, in the role of sticks that are plugged in and pulled out."""

import fcntl
import os
import secrets
import subprocess
from contextlib import suppress
from pathlib import Path

# include/uapi/linux/loop.h
LOOP_CHANGE_FD, LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C06, 0x4C80, 0x4C81


class LoopDevice:
    """A fresh device with a high number: the kernel gives others the lowest free one."""

    def __init__(self) -> None:
        self.number = 100_000 + secrets.randbelow(900_000)
        self.node = f"/dev/loop{self.number}"
        self._control(LOOP_CTL_ADD)

    def plug_in(self, image: Path, *options: str) -> None:
        subprocess.run(["losetup", *options, self.node, image], check=True)

    def is_plugged_in(self) -> bool:
        return Path(f"/sys/block/loop{self.number}/loop").is_dir()

    def pull_out(self) -> None:
        subprocess.run(["losetup", "--detach", self.node], check=True)

    def swap(self, image: Path) -> None:
        """Another medium of the same size in the same place, at once (read-only devices only)."""
        with Path(self.node).open("rb") as device, image.open("rb") as file:
            fcntl.ioctl(device, LOOP_CHANGE_FD, file.fileno())

    def show_partitions(self) -> None:
        """Not every kernel reads partition tables itself."""
        subprocess.run(["partx", "--add", self.node], check=True)

    def remove(self) -> None:
        for argv in (["partx", "--delete", self.node], ["losetup", "--detach", self.node]):
            subprocess.run(argv, check=False, capture_output=True)
        with suppress(OSError):
            self._control(LOOP_CTL_REMOVE)

    def _control(self, request: int) -> None:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(control, request, self.number)
        finally:
            os.close(control)
