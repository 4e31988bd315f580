"""Carries out the orders about sources and images."""

import asyncio
import os
from collections.abc import Callable, Iterable

from extsloader.model import events as ev
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.plan import Bundle
from extsloader.model.reasons import Problem
from extsloader.model.source import Source
from extsloader.model.trust import Bounds
from extsloader.ports.machine import Emit, Ports
from extsloader.runtime.threads import Worker

Problems = list[tuple[ServiceName, Problem]]


class ImageWork:
    """Keeps the descriptors of verified images: what was hashed is what is mounted."""

    def __init__(self, ports: Ports, threads: Worker) -> None:
        self._verifier = ports.verifier
        self._mounts = ports.mounts
        self._device = ports.device
        self._store = ports.store
        self._threads = threads
        self._descriptors: dict[Digest, int] = {}
        self._dropping = asyncio.Lock()

    async def probe(self, source: Source) -> ev.Probed:
        """Read the superblock in a helper. Raises ImageRefusedError."""
        return ev.Probed(source.id, await self._verifier.probe(source))

    async def verify(self, source: Source, bounds: Bounds, emit: Emit) -> ev.Verified:
        """Verify and store in a helper. Raises ImageRefusedError.

        It begins when nothing is being deleted any more: an image that it finds or publishes while
        the same digest is deleted would lose its name.
        """
        async with self._dropping:
            pass
        image, descriptor = await self._verifier.verify(source, bounds, _progress(source.id, emit))
        self._keep(image.digest, descriptor)
        return ev.Verified(source.id, image)

    async def mount(self, image: StoredImage, *, verity: bool) -> ev.ImageMounted:
        """Mount it and read its bundles. Raises MachineError."""
        return await self._threads.run(self._mount, image, verity=verity)

    async def unmount(self, digest: Digest, *, drop: bool) -> ev.ImageUnmounted:
        """Undo `mount`. Raises MachineError."""
        await self._threads.run(self._mounts.unmount_image, digest)
        if drop:
            await self.drop(digest)
        return ev.ImageUnmounted(digest)

    async def check(self, digest: Digest) -> ev.ImageChecked:
        """Ask dm-verity about it. Raises MachineError."""
        await self._threads.run(self._mounts.check_image, digest)
        return ev.ImageChecked(digest)

    async def drop(self, digest: Digest) -> None:
        """Delete it from the store, which takes its time. Raises MachineError."""
        self._close(digest)
        async with self._dropping:
            await self._threads.run(self._store.drop, digest)

    def close(self) -> None:
        """Give the descriptors back."""
        for digest in tuple(self._descriptors):
            self._close(digest)

    def _mount(self, image: StoredImage, *, verity: bool) -> ev.ImageMounted:
        descriptor = self._descriptors[image.digest]
        mountpoint = self._mounts.mount_image(image, descriptor, verity=verity)
        found = self._find_services(image, mountpoint) if image.pinned else ()
        services = found or image.manifest.services
        bundles, problems = self._read_bundles(services, mountpoint)
        paths = {p for service in services for p in service.conditions.paths}
        return ev.ImageMounted(
            image.digest,
            mountpoint,
            tuple(bundles),
            tuple(problems),
            existing=self._device.find_existing(paths),
            found=found,
        )

    def _find_services(self, image: StoredImage, mountpoint: str) -> tuple[Service, ...]:
        try:
            return self._mounts.find_services(mountpoint)
        except MachineError:
            self._mounts.unmount_image(image.digest)
            raise

    def _read_bundles(
        self, services: Iterable[Service], mountpoint: str
    ) -> tuple[list[Bundle], Problems]:
        bundles: list[Bundle] = []
        problems: Problems = []
        for service in services:
            try:
                bundles.append(self._mounts.read_bundle(mountpoint, service))
            except MachineError as error:
                problems.append((service.name, error.problem))
        return bundles, problems

    def _keep(self, digest: Digest, descriptor: int) -> None:
        """The first one stays: it may be under a mount already."""
        if digest in self._descriptors:
            os.close(descriptor)
        else:
            self._descriptors[digest] = descriptor

    def _close(self, digest: Digest) -> None:
        descriptor = self._descriptors.pop(digest, None)
        if descriptor is not None:
            os.close(descriptor)


def _progress(source: SourceId, emit: Emit) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        emit(ev.VerifyProgressed(source, done, total))

    return report
