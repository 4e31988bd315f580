"""The status socket: HTTP/1.1 over a unix socket, `docs/status.md`."""

from extsloader.adapters.status_socket.connection import Bounds
from extsloader.adapters.status_socket.server import StatusSocket

__all__ = ["Bounds", "StatusSocket"]
