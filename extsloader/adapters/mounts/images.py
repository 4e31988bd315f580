"""The image itself: loop device, squashfs, and the way back."""

import os
from contextlib import suppress

from extsloader.adapters.mounts import loop, mountinfo
from extsloader.adapters.mounts.directories import make, remove_empty
from extsloader.adapters.mounts.mountinfo import Mount
from extsloader.adapters.mounts.reasons import in_words
from extsloader.adapters.mounts.syscalls import (
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    by_descriptor,
    mount,
    opened,
)
from extsloader.adapters.mounts.unmounting import unmount
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, short
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code


def mountpoint(run: str, digest: Digest) -> str:
    """Where an image is mounted."""
    return f"{run}/images/{short(digest)}"


def mount_image(image: StoredImage, descriptor: int, run: str) -> str:
    """As `MountPort.mount_image`."""
    target = mountpoint(run, image.digest)
    found = mountinfo.top(mountinfo.read(target), target)
    if found is None:
        _mount_fresh(image, descriptor, run, target)
    elif not _is_of(found, descriptor):
        raise MachineError(
            Code.MOUNT,
            f"mount the image {short(image.digest)}",
            f"{found.fs_type} from {found.source} is mounted on {target} already",
            f"stop what uses it and unmount {target}",
        )
    return target


def _mount_fresh(image: StoredImage, descriptor: int, run: str, target: str) -> None:
    digest = short(image.digest)
    try:
        make(target, 0o700)
        # Only the squashfs itself: what follows it (hash tree, trailer) is none of its business.
        size = image.manifest.image.verity.hash_offset
        with loop.attached(descriptor, size, f"extsloader:{digest}") as node:
            _mount_squashfs(node, target, digest)
    except OSError as error:
        remove_empty(run, target)
        raise MachineError(
            Code.MOUNT, f"mount the image {digest} on {target}", in_words(error)
        ) from error
    except MachineError:
        remove_empty(run, target)
        raise


def _mount_squashfs(node: str, target: str, digest: str) -> None:
    with opened(target, os.O_PATH | os.O_DIRECTORY) as directory:
        try:
            flags = MS_RDONLY | MS_NOSUID | MS_NODEV
            mount(node, by_descriptor(directory), "squashfs", flags)
        except OSError as error:
            raise MachineError(
                Code.IMAGE_FS,
                f"mount the squashfs of the image {digest}",
                in_words(error),
                "the kernel log says which part of it the kernel refuses",
            ) from error


def unmount_image(digest: Digest, run: str) -> None:
    """As `MountPort.unmount_image`."""
    target = mountpoint(run, digest)
    found = mountinfo.top(mountinfo.read(target), target)
    if found is not None:
        _unmount(found)
    remove_empty(run, target)


def _unmount(found: Mount) -> None:
    file = loop.backing_file(found.source)
    unmount(found.target)
    # Overlays on the image keep the file system, and with it the device, although its own mount
    # is gone. By now the number may also serve another file.
    if file and loop.backing_file(found.source) == file:
        raise MachineError(
            Code.MOUNT,
            f"release {found.source}",
            f"{found.target} is unmounted, but something still uses {file}",
            "overlays on the image or another mount namespace hold it; it goes with them",
        )


def _is_of(found: Mount, descriptor: int) -> bool:
    with suppress(OSError):
        return found.fs_type == "squashfs" and loop.shows(found.source, descriptor)
    return False
