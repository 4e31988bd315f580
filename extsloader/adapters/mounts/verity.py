"""dm-verity between the loop device and the squashfs, set up by veritysetup(8).

All parameters come from the signed manifest, none from the superblock behind the data, which is
skipped. Errors are EIO for the reader: no correction, no restart, no panic. A device is known by
its name alone, so that a new process finds what an earlier one left.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from extsloader.adapters.mounts.programs import run, settle_udev
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, short
from extsloader.model.manifest import Verity
from extsloader.model.reasons import Code

_PREFIX: Final = "extsloader-"
_BLOCK_DEVICES: Final = Path("/sys/block")


@contextmanager
def opened(node: str, verity: Verity, digest: Digest) -> Iterator[str]:
    """The node of a device that shows the data of `node` and checks each block that is read.

    It stays if a mount of it was made, and is gone after a failure. Raises MachineError.
    """
    close(digest)  # an agent that was killed before its mount left it
    name = _name(digest)
    stage = f"set up dm-verity for the image {short(digest)}"
    _veritysetup(stage, "open", node, name, node, verity.root_hash, *parameters(verity))
    try:
        mapped = _devices()[name]
        # With a wrong root hash the device opens as well, and counts as verified until it is read.
        with suppress(OSError):
            _read_ends(mapped, verity)
        check(digest)
        yield mapped
    except BaseException:
        with suppress(MachineError):  # the first failure is the one to tell
            close(digest)
        raise


def check(digest: Digest) -> None:
    """Whether all blocks read so far were good. Raises MachineError, E_VERITY if one was not."""
    stage = f"trust the image {short(digest)}"
    lines = _veritysetup(stage, "status", _name(digest)).splitlines()
    fields = (line.partition(":") for line in lines)
    status = {key.strip(): value.strip() for key, _, value in fields}.get("status")
    if status != "verified":
        raise MachineError(
            Code.VERITY,
            stage,
            f"a block was read that does not belong to the signed root hash: status {status}",
            "look at the disk below the store, then restart the agent with the medium plugged in",
        )


def close(digest: Digest) -> None:
    """Remove the device; one that is still in use goes with its last user. Raises MachineError."""
    name = _name(digest)
    if name not in _devices():
        return
    try:
        _veritysetup(f"close {name}", "close", name)
    except MachineError:
        # Each bad block is a change (drivers/md/dm-verity-target.c, verity_handle_err) that udevd
        # has a look at. Whoever else uses it keeps it for so long, and no longer.
        settle_udev()
        if name in _devices():
            _veritysetup(f"close {name}", "close", "--deferred", name)


def close_others(keep: Digest) -> None:
    """Remove the devices of all images but one. Raises MachineError."""
    for name in _devices():
        if name.startswith(_PREFIX) and name != _name(keep):
            close(Digest(name.removeprefix(_PREFIX)))


def is_of(node: str, digest: Digest) -> bool:
    """Whether it is the device of this image."""
    return _devices().get(_name(digest)) == node


def find_loop(node: str) -> str:
    """The loop device below; the node itself, if there is none."""
    below = (_BLOCK_DEVICES / Path(node).name / "slaves").glob("loop*")
    return next((f"/dev/{loop.name}" for loop in below), node)


def parameters(verity: Verity) -> tuple[str, ...]:
    """Options of veritysetup(8), so that nothing is left for it to find out by itself."""
    return (
        "--no-superblock",
        "--format=1",
        f"--hash={verity.algorithm}",
        f"--data-block-size={verity.block_size}",
        f"--hash-block-size={verity.block_size}",
        f"--data-blocks={verity.data_blocks}",
        # Without a superblock this is where the tree begins: behind the block of ours.
        f"--hash-offset={verity.hash_offset + verity.block_size}",
        f"--salt={verity.salt or '-'}",
    )


def _veritysetup(stage: str, action: str, *arguments: str) -> str:
    hint = 'install cryptsetup-bin or look at the kernel log; integrity "store" does without both'
    return run(stage, "veritysetup", action, *arguments, hint=hint)


def _read_ends(node: str, verity: Verity) -> None:
    """The root hash vouches for any block; the last one tells that none is missing."""
    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for block in (0, verity.data_blocks - 1):
            os.pread(descriptor, verity.block_size, block * verity.block_size)
    finally:
        os.close(descriptor)


def _name(digest: Digest) -> str:
    return f"{_PREFIX}{short(digest)}"


def _devices() -> dict[str, str]:
    """Names of all device-mapper devices and their nodes, which need no udev."""
    found = {}
    for path in _BLOCK_DEVICES.glob("dm-*/dm/name"):
        with suppress(OSError):  # it is going away
            found[path.read_text().rstrip("\n")] = f"/dev/{path.parts[-3]}"
    return found
