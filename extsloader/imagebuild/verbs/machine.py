"""The verb that boots a disk in QEMU. It builds nothing."""

import os
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from extsloader.imagebuild.disk.boot_files import extract_kernel, with_words
from extsloader.imagebuild.disk.partitions import (
    copy_partition,
    make_persist_disk,
    make_pkgs_disk,
    replace_partition,
)
from extsloader.imagebuild.disk.qemu import (
    OVMF,
    PROGRAM,
    Accelerator,
    Host,
    Machine,
    Via,
    choose_accelerator,
    fits_vvfat,
    plan_machine,
    plan_pkgs,
)
from extsloader.imagebuild.tools import run_tool
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

KILLED_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
_PERSIST_SIZE = 2 << 30  # bytes; sparse
_CONFIG = "CONFIG"


def run(args: Namespace) -> None:
    """Boot a disk with the console on the terminal, until the guest ends or Ctrl-A X."""
    _check(args)
    # So that what is temporary goes on a plain kill, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    accelerator = find_accelerator()
    with TemporaryDirectory(prefix="mkext-run-") as folder:
        command = _plan(args, accelerator, Path(folder))
        print(f"booting {args.disk} {accelerator.remark or 'with KVM'}", flush=True)
        if sys.stdin.isatty():
            print("Ctrl-A X ends the machine, Ctrl-A H says more", flush=True)
        # Without a terminal nobody types, and a closed input must not look like keys.
        stdin = None if sys.stdin.isatty() else subprocess.DEVNULL
        code = subprocess.run([*KILLED_WITH_PARENT, *command], check=False, stdin=stdin).returncode
    if code:
        raise MachineError(Code.IO, f"run {args.disk}", f"{PROGRAM} ended with {code}")


def find_accelerator() -> Accelerator:
    """KVM or not, on this machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return choose_accelerator(Host(kvm=kvm, virtualises=not {"vmx", "svm"}.isdisjoint(flags)))


def make_source(via: Via, image: Path, folder: Path) -> Path:
    """What the machine gets on this road: the image, or something in `folder` that holds it."""
    match via:
        case Via.VVFAT:
            stick = folder / "stick"
            stick.mkdir()
            (stick / "rootfs-pkgs.img").symlink_to(image.absolute())
            return stick
        case Via.PARTITION:
            disk = folder / "pkgs.disk"
            make_pkgs_disk(disk, image)
            return disk
        case Via.VIRTIO | Via.USB:
            return image


def _plan(args: Namespace, accelerator: Accelerator, folder: Path) -> list[str]:
    disk = with_config(args.disk, args.conf, folder) if args.conf else args.disk
    kernel = with_words(extract_kernel(disk, folder), args.append) if args.append else None
    if args.persist and not args.persist.exists():
        make_persist_disk(args.persist, _PERSIST_SIZE)
    machine = Machine(
        disk=disk, write=args.write, memory=args.memory, cpus=args.cpus,
        kernel=kernel, persist=args.persist,
    )  # fmt: skip
    serial = "mon:stdio" if sys.stdin.isatty() else "stdio"
    words = plan_machine(machine, accelerator, [serial])
    if args.pkgs:
        via = Via(args.via)
        words += plan_pkgs(via, make_source(via, args.pkgs, folder))
    return words


def with_config(disk: Path, conf: Path, folder: Path) -> Path:
    """An overlay of the disk with more files in its partition CONFIG."""
    content, overlay = folder / "config.img", folder / "disk.qcow2"
    copy_partition(disk, _CONFIG, content)
    files = [str(path) for path in sorted(conf.iterdir())]
    run_tool(["mcopy", "-s", "-o", "-i", str(content), *files, "::"], f"copy {conf} into {_CONFIG}")
    backing = ["-b", str(disk.resolve()), "-F", "qcow2"]
    run_tool(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(overlay)], f"overlay {disk}")
    replace_partition(overlay, _CONFIG, content)
    return overlay


def _check(args: Namespace) -> None:
    """Everything that can be known to fail before something is made."""
    if args.arch != "amd64":
        reason = "only amd64 machines can be run"
        raise MachineError(Code.INCOMPATIBLE, f"run an {args.arch} disk", reason)
    _expect_file(args.disk, "make live-bootstrap")
    if args.pkgs:
        _expect_file(args.pkgs, "make pkgs_rootfs")
    if args.pkgs and args.via == Via.VVFAT and not fits_vvfat(args.pkgs.stat().st_size):
        reason = f"it has {args.pkgs.stat().st_size >> 20} MiB, and QEMU's vfat ends at 504 MiB"
        raise MachineError(Code.LIMIT, f"put {args.pkgs} on a vvfat", reason, "use --via usb")
    if args.write and args.conf:
        raise MachineError(
            Code.IO, "write to the disk", "--conf works on a copy of it", "leave --write or --conf"
        )
    run_tool([PROGRAM, "--version"], "boot")
    if not args.append and not OVMF.is_dir():
        raise MachineError(Code.IO, "boot", f"{OVMF} is missing", "apt-get install ovmf")


def _expect_file(path: Path, target: str) -> None:
    if not path.is_file():
        raise MachineError(Code.IO, f"run {path}", "there is no such file", f"run `{target}`")
