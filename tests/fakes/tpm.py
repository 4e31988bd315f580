"""A TPM in software for a virtual machine; each machine gets a new one."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extsloader.imagebuild.verbs.machine import KILLED_WITH_PARENT


@contextmanager
def software_tpm(folder: Path) -> Iterator[list[str]]:
    """Words for QEMU that put it into the machine; it is killed in the end, and with the tests."""
    path = folder / "tpm"
    with socket.socket(socket.AF_UNIX) as server:
        # It listens before swtpm runs: QEMU need not wait for it.
        server.bind(str(path))
        server.listen()
        command = [
            *KILLED_WITH_PARENT, "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}",
            "--ctrl", f"type=unixio,fd={server.fileno()}",
        ]  # fmt: skip
        process = subprocess.Popen(command, pass_fds=[server.fileno()])
    with process:
        try:
            yield [
                "-chardev", f"socket,id=tpm,path={path}",
                "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm",
            ]  # fmt: skip
        finally:
            process.kill()
