"""`python -m extsloader.helper`: checks the settings, then stays for the first image.

A process of its own, because pydantic costs the daemon 10 MB for one second's work. The first
verification needs pydantic as well: on a small device that boots, starting Python anew and loading
everything once more takes seconds (docs/adr/0026-one-helper-for-the-start.md).
"""

import argparse
import os
import select
import socket
import sys
from dataclasses import asdict

import msgspec

from extsloader.settings.check import check

PATIENCE = 30.0  # seconds that an unused process may cost its memory


def main() -> int:
    """Exit code 1 after a list of problems; else that of the one verification, or 0 without."""
    parser = argparse.ArgumentParser(prog="extsloader.helper")
    parser.add_argument("--config", metavar="FILE")
    parser.add_argument("--root", metavar="DIR", default="/")
    options = parser.parse_args()
    settings, problems = check(options.config, options.root, os.environ)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as channel:
        if settings is None:
            channel.send(msgspec.json.encode([asdict(problem) for problem in problems]))
            return 1
        channel.send(settings.model_dump_json().encode())
        os.chdir("/")
        return stay(channel)


def stay(channel: socket.socket, patience: float = PATIENCE) -> int:
    """Load what a verification needs, which takes longest, and wait for one."""
    import extsloader.verify.trust  # noqa: F401, PLC0415 - the settings must not wait for it
    from extsloader.verify.__main__ import main as serve  # noqa: PLC0415

    asked, _, _ = select.select([channel], [], [], patience)
    return serve("verify") if asked else 0


if __name__ == "__main__":
    sys.exit(main())
