"""The image itself: loop device, squashfs, and the way back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from extsloader.adapters.mounts import loop, mountinfo, verity
from extsloader.adapters.mounts.directories import make, remove_empty
from extsloader.adapters.mounts.mountinfo import Mount
from extsloader.adapters.mounts.programs import settle_udev
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


def mount_image(image: StoredImage, descriptor: int, run: str, *, checked: bool) -> str:
    """As `MountPort.mount_image`."""
    target = mountpoint(run, image.digest)
    found = mountinfo.top(mountinfo.read(target), target)
    if found is None:
        _mount_fresh(image, descriptor, run, target, checked=checked)
    elif checked != verity.is_of(found.source, image.digest) or not _is_of(found, descriptor):
        raise MachineError(
            Code.MOUNT,
            f"mount the image {short(image.digest)}",
            f"{found.fs_type} from {found.source} is mounted on {target} already",
            f"stop what uses it and unmount {target}",
        )
    return target


def _mount_fresh(
    image: StoredImage, descriptor: int, run: str, target: str, *, checked: bool
) -> None:
    digest = short(image.digest)
    try:
        make(target, 0o700)
        with _device(image, descriptor, checked=checked) as node:
            _mount_squashfs(node, target, digest)
    except OSError as error:
        remove_empty(run, target)
        raise MachineError(
            Code.MOUNT, f"mount the image {digest} on {target}", in_words(error)
        ) from error
    except MachineError:
        remove_empty(run, target)
        raise


@contextmanager
def _device(image: StoredImage, descriptor: int, *, checked: bool) -> Iterator[str]:
    spec = image.manifest.image
    # Without dm-verity what follows the squashfs (hash tree, trailer) is none of its business.
    size = spec.size if checked else spec.verity.hash_offset
    with loop.attached(descriptor, size, f"extsloader:{short(spec.digest)}") as node:
        if not checked:
            yield node
            return
        with verity.opened(node, spec.verity, spec.digest) as mapped:
            yield mapped


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
    if found is None:
        remove_empty(run, target)
        return
    node = verity.find_loop(found.source)
    file = loop.backing_file(node)
    unmount(target)
    # A container of anybody's that is just starting has a copy of the mount in its namespace, which
    # the kernel takes away with the directory (vfs_rmdir() detaches it, Linux 3.18).
    remove_empty(run, target)
    verity.close(digest)
    # Overlays on the image keep the file system, and with it the device, although its own mount
    # is gone. By now the number may also serve another file.
    if file and loop.backing_file(node) == file:
        settle_udev()
    if file and loop.backing_file(node) == file:
        raise MachineError(
            Code.MOUNT,
            f"release {node}",
            f"{target} is unmounted, but something still uses {file}",
            "overlays on the image or another mount namespace hold it; it goes with them",
        )


def _is_of(found: Mount, descriptor: int) -> bool:
    with suppress(OSError):
        return found.fs_type == "squashfs" and loop.shows(
            verity.find_loop(found.source), descriptor
        )
    return False
