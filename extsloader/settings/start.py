"""Starts the process that checks the settings.

Apart from what reads its answer: that takes longer to load than this.
"""

import os
import socket
import subprocess
import sys

from extsloader.model.isolation import ENVIRONMENT, OPTIONS

Process = tuple[subprocess.Popen[bytes], socket.socket]
"""The process, and the other end of the socket that is its standard input."""


def start_checking(config: str | None, root: str = "/") -> Process:
    """Start the process and do not wait for it. Raises OSError."""
    argv = [sys.executable, *OPTIONS, "extsloader.helper", root]
    argv += [config] if config is not None else []
    ours = {k: v for k, v in os.environ.items() if k.startswith("EXTSLOADER_")}
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            process = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**ours, **ENVIRONMENT},
                start_new_session=True,
            )
        except OSError:
            channel.close()
            raise
    return process, channel
