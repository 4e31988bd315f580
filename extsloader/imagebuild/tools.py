"""The one place where the build starts other programs."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
"""This machine's, by Debian's name."""

_DROPPED = "SOURCE_DATE_EPOCH"
"""mksquashfs refuses its time options while this is set, and our steps give the time themselves."""

_WRAPPER = re.compile(r"env$|unshare$|-|\w+=")
"""What comes before the program that `as_root`, or env(1), starts."""

_PACKAGES = {
    "apt-get": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "mkfs.vfat": "dosfstools",
    "objcopy": "binutils",
    "mcopy": "mtools",
    "mkfs.erofs": "erofs-utils",
    "mmd": "mtools",
    "mke2fs": "e2fsprogs",
    "mksquashfs": "squashfs-tools",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "sfdisk": "fdisk",
}


def as_root(argv: Sequence[str]) -> list[str]:
    """A command to which the files of whoever builds belong to root (user_namespaces(7))."""
    return [*argv] if os.geteuid() == 0 else ["unshare", "--map-root-user", *argv]


def run_tool(
    argv: Sequence[str],
    stage: str,
    *,
    cwd: Path | None = None,
    hint: str = "",
    **streams: IO[bytes],
) -> bytes:
    """Run a program to its end and return its output, unless a stream `stdout` takes it.

    Raises MachineError(E_IO) with the last line that the program wrote to stderr.
    """
    program = next(word for word in argv if not _WRAPPER.match(word))
    if not shutil.which(program):
        hint = f"apt-get install {_PACKAGES.get(program, program)}"
        raise MachineError(Code.IO, stage, f"{program} is not installed", hint)
    try:
        done = subprocess.run(
            argv, stderr=subprocess.PIPE, check=True, cwd=cwd,
            stdin=streams.get("stdin", subprocess.DEVNULL),
            stdout=streams.get("stdout", subprocess.PIPE),
            env={k: v for k, v in os.environ.items() if k != _DROPPED} | {"LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise MachineError(
            Code.IO, stage, f"{program} ended with {error.returncode}: {said[-1]}", hint
        ) from error
    return done.stdout or b""
