"""The mount port on the real kernel."""

from contextlib import ExitStack, suppress
from threading import Lock

from extsloader.adapters.mounts import bundles, images, steps
from extsloader.adapters.mounts.directories import mountpoints, remove_empty
from extsloader.adapters.mounts.unmounting import leftovers, raise_all, unmount_all
from extsloader.adapters.mounts.verity import check, close_others
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, short
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.plan import Bundle, MountStep


class Mounts:
    """`MountPort` below one run directory, an absolute path without links."""

    def __init__(self, run: str) -> None:
        self._run = run
        # Services share parent directories: one must not remove what another is about to use.
        self._one_step = Lock()

    def mount_image(self, image: StoredImage, descriptor: int, *, verity: bool = False) -> str:
        """Mount at `<run>/images/<12 digits>`.

        Raises MachineError(E_MOUNT, E_IMAGE_FS, E_VERITY or E_TIMEOUT).
        """
        return images.mount_image(image, descriptor, self._run, checked=verity)

    def check_image(self, digest: Digest) -> None:
        """Raises MachineError(E_VERITY), or E_MOUNT or E_TIMEOUT when veritysetup cannot tell."""
        check(digest)

    def unmount_image(self, digest: Digest) -> None:
        """Raises MachineError(E_MOUNT): in use, or unmounted and its loop device still held."""
        images.unmount_image(digest, self._run)

    def apply(self, steps_: tuple[MountStep, ...]) -> None:
        """Do what is not done yet. Raises MachineError(E_MOUNT) after undoing what it did."""
        with ExitStack() as undone_on_failure:
            for step in steps_:
                if self._do(step):
                    undone_on_failure.callback(self._undo_quietly, step)
            undone_on_failure.pop_all()

    def undo(self, steps_: tuple[MountStep, ...]) -> None:
        """Undo whatever of the steps is there. Raises one MachineError(E_MOUNT) for all."""
        failures = []
        for step in reversed(steps_):
            try:
                self._undo(step)
            except MachineError as error:
                failures.append(error)
        raise_all(failures)

    def sweep(self, keep: Digest) -> None:
        """Every path of an image's mounts holds its 12 digits. Raises MachineError(E_MOUNT)."""
        others = [m for m in leftovers(self._run) if not keep or short(keep) not in m.target]
        unmount_all(tuple(others), self._run)
        close_others(keep)
        for path in mountpoints(self._run):  # a removal that failed has left some without a mount
            if not keep or short(keep) not in path:
                remove_empty(self._run, path)

    def find_services(self, mountpoint: str) -> tuple[Service, ...]:
        """Raises MachineError(E_BUNDLE)."""
        return bundles.find_services(mountpoint)

    def read_bundle(self, mountpoint: str, service: Service) -> Bundle:
        """Raises MachineError(E_BUNDLE)."""
        return bundles.read_bundle(mountpoint, service)

    def _do(self, step: MountStep) -> bool:
        with self._one_step:
            return steps.do(step, self._run)

    def _undo(self, step: MountStep) -> None:
        with self._one_step:
            steps.undo(step, self._run)

    def _undo_quietly(self, step: MountStep) -> None:
        with suppress(MachineError):  # the first failure is the one to tell
            self._undo(step)
