"""Reading two small files from an image that may try to make us read something else."""

import os
import re
import stat
from typing import Final

from extsloader.adapters.mounts.reasons import in_words
from extsloader.adapters.mounts.syscalls import NO_LINKS, RESOLVE_BENEATH, RESOLVE_NO_XDEV, opened
from extsloader.image.relations import MAX_SERVICES
from extsloader.model.errors import MachineError
from extsloader.model.ids import NAME, RESERVED, ServiceName
from extsloader.model.manifest import Service
from extsloader.model.plan import Bundle
from extsloader.model.reasons import Code

SERVICES: Final = "containers/services"
MOST: Final = 1 << 20  # bytes of one file; LinuxKit's are about 10 KiB
# Without O_NONBLOCK the open of a FIFO would wait for a writer for ever.
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_RESOLVE: Final = NO_LINKS | RESOLVE_BENEATH | RESOLVE_NO_XDEV


def read_bundle(mountpoint: str, service: Service) -> Bundle:
    """As `MountPort.read_bundle`."""
    config = _read(mountpoint, f"{service.bundle}/config.json")
    if config is None:
        raise _unusable(f"{service.bundle}/config.json", "there is no such file in the image")
    runtime = _read(mountpoint, f"{service.bundle}/runtime.json") or ""
    return Bundle(service=service.name, config=config, runtime=runtime)


def find_services(mountpoint: str) -> tuple[Service, ...]:
    """As `MountPort.find_services`."""
    try:
        with (
            opened(mountpoint, os.O_PATH | os.O_DIRECTORY) as root,
            opened(SERVICES, _FLAGS | os.O_DIRECTORY, resolve=_RESOLVE, dir_fd=root) as directory,
        ):
            names = sorted(os.listdir(directory))  # noqa: PTH208 - of a descriptor
    except OSError as error:
        raise _unusable(SERVICES, in_words(error)) from error
    wrong = [name for name in names if name in RESERVED or not re.fullmatch(NAME, name)]
    if wrong:
        raise _unusable(SERVICES, f"{wrong[0]!a} cannot be the name of a service")
    if not 0 < len(names) <= MAX_SERVICES:
        raise _unusable(SERVICES, f"1 to {MAX_SERVICES} services expected, got {len(names)}")
    return tuple(Service(name=ServiceName(n), bundle=f"{SERVICES}/{n}") for n in names)


def _read(mountpoint: str, path: str) -> str | None:
    try:
        with (
            opened(mountpoint, os.O_PATH | os.O_DIRECTORY) as root,
            opened(path, _FLAGS, resolve=_RESOLVE, dir_fd=root) as descriptor,
        ):
            return _read_regular(descriptor, path)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _unusable(path, f"expected UTF-8, got byte {error.start} that is not") from error
    except OSError as error:
        raise _unusable(path, in_words(error)) from error


def _read_regular(descriptor: int, path: str) -> str:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(path, "expected a regular file, got something else")
    if found.st_size > MOST:
        raise _unusable(path, f"expected at most {MOST} bytes, got {found.st_size}")
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(MOST).decode("utf-8")


def _unusable(path: str, reason: str) -> MachineError:
    return MachineError(Code.BUNDLE, f"read {path}", reason, "build the image anew")
