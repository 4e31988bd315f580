"""Tells the service manager how we are: sd_notify(3), without libsystemd."""

import os
import re
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """Sends to the manager's socket; without one, every call does nothing.

    Each call returns whether the manager has got it. A manager that does not listen is no
    error of ours, and waiting for it would block the loop.
    """

    address: str = ""
    watchdog: float | None = None  # seconds within which `keep_alive` is expected

    def ready(self) -> bool:
        """The agent's start is over."""
        return self._send("READY=1")

    def say(self, status: str) -> bool:
        """One line for `systemctl status`."""
        return self._send("STATUS=" + " ".join(status.splitlines()))

    def stopping(self) -> bool:
        """The agent ends by its own will."""
        return self._send("STOPPING=1")

    def keep_alive(self) -> bool:
        """Half of `watchdog` is a good distance between two calls (sd_watchdog_enabled(3))."""
        return self._send("WATCHDOG=1")

    def _send(self, assignment: str) -> bool:
        if not self.address:
            return False
        address = self.address
        if address.startswith("@"):  # abstract: systemd writes the leading NUL as "@"
            address = "\0" + address[1:]
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_UNIX, kind) as sender:
            try:
                sender.sendto(assignment.encode(), address)
            except OSError:
                return False
        return True


def take_notifier(environ: MutableMapping[str, str]) -> Notifier:
    """Read the manager's variables and remove them.

    Removed, because runc passes the notifications of a container on when it finds NOTIFY_SOCKET
    in its environment, and a service's READY=1 would count as ours.
    """
    address = environ.pop("NOTIFY_SOCKET", "")
    interval = environ.pop("WATCHDOG_USEC", "")
    meant_for = environ.pop("WATCHDOG_PID", str(os.getpid()))
    if not address.startswith(("/", "@")):
        address = ""
    # As many digits as 64 bits have: Python refuses to read very long numbers, with an error.
    if not re.fullmatch("0*[1-9][0-9]{,19}", interval) or meant_for != str(os.getpid()):
        return Notifier(address=address)
    return Notifier(address=address, watchdog=int(interval) / 1e6)
