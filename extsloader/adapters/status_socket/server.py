"""Listens, and holds the number of clients down."""

import asyncio
from contextlib import suppress
from typing import Self

from extsloader.adapters.status_socket import endpoint, routes
from extsloader.adapters.status_socket.connection import Bounds, Connection
from extsloader.ports.status import ControlPort, StatusPort


class StatusSocket:
    """The socket at `path`: reading for whoever may connect, changes by asking the control port.

    Descriptors that a client passes along (SCM_RIGHTS) never arrive: the kernel drops them when
    recv(2) offers no buffer for them.
    """

    def __init__(
        self,
        status: StatusPort,
        control: ControlPort,
        path: str,
        group: str = "",
        bounds: Bounds | None = None,
    ) -> None:
        self._status = status
        self._control = control
        self._path = path
        self._group = group
        self._bounds = bounds or Bounds()
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._identity = (0, 0)

    async def start(self) -> Self:
        """Listen from now on. Raises MachineError."""
        listener = endpoint.open_endpoint(self._path, self._group)
        self._identity = endpoint.identify(self._path)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=self._bounds.head
        )
        return self

    async def keep(self) -> None:
        """Listen anew if the socket or its directory was removed; who is connected stays so.

        Raises MachineError when something else lies in its place.
        """
        with suppress(FileNotFoundError):
            if endpoint.identify(self._path) == self._identity:
                return
        before = self._server
        await self.start()
        if before:
            before.close()

    async def close(self) -> None:
        """End all answers, also the endless ones, and take the socket away."""
        if self._server is None:
            return
        self._server.close()
        endpoint.remove_endpoint(self._path, self._identity)
        clients = tuple(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self._status, self._control, reader, writer, self._bounds)
        task = asyncio.current_task()
        if task is None or len(self._clients) >= self._bounds.clients:
            message = f"{self._bounds.clients} clients are connected already"
            hint = "close one, or try again in a moment"
            await connection.refuse(routes.fail(503, "E_BUSY", message, hint))
            return
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        # Swallowed, as Python 3.11's streams report a cancelled callback as an error.
        with suppress(asyncio.CancelledError):
            await connection.serve()
