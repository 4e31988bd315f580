"""A real virtual machine: its console, its journal, a root shell in it, and its hardware by QMP."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from extsloader.imagebuild.disk.qemu import Machine, Via, plan_machine
from extsloader.imagebuild.verbs.machine import KILLED_WITH_PARENT, find_accelerator
from extsloader.model.status import StatusSnapshot

PATIENCE = 90.0  # seconds; a busy machine is three times slower than a quiet one
SERIALS = ("console", "shell", "journal")  # ttyS0, ttyS1, ttyS2
TAIL = 2500  # characters of each stream in the message of a failure


class Stream(asyncio.Protocol):
    """What the guest says on one line, from the start on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self._news = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.text += data.decode(errors="replace").replace("\r", "")
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._news.set()

    def write(self, text: str) -> None:
        assert self._transport, "the guest has ended"
        self._transport.write(text.encode())

    def mark(self) -> int:
        """Here: for `since`."""
        return len(self.text)

    async def expect(
        self, pattern: str, *, since: int = 0, within: float = PATIENCE
    ) -> re.Match[str]:
        """Wait until whole lines have it."""
        wanted = re.compile(pattern, re.MULTILINE)
        try:
            async with asyncio.timeout(within):
                while not (found := wanted.search(self.text, since, self.text.rfind("\n") + 1)):
                    assert self._transport, f"the guest ended before {pattern!r}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} on the {self.name} in {within} s") from None
        return found


class Guest:
    """A running machine. Everything is waited for on its streams."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.console, self.shell, self.journal, self.monitor = (
            Stream(name) for name in (*SERIALS, "monitor")
        )
        self.attached: set[str] = set()
        self._process = process
        self._count = 0

    async def sh(self, command: str, within: float = PATIENCE) -> tuple[int, str]:
        """Run it in the guest; exit code, and what it wrote to stdout and stderr."""
        self._count += 1
        number, mark = self._count, self.shell.mark()
        # Two pieces, so that the terminal's echo of this line is not taken for the answer.
        begin, end = f'echo @@"B{number}"', f'echo; echo @@"E{number}" $code'
        self.shell.write(f"{begin}; ({command}\n) </dev/null 2>&1; code=$?; {end}\n")
        found = await self.shell.expect(
            rf"^@@B{number}\n([\s\S]*?)\n@@E{number} (\d+)$", since=mark, within=within
        )
        return int(found[2]), found[1].rstrip("\n")

    async def run(self, command: str, within: float = PATIENCE) -> str:
        """Run it in the guest; it must succeed."""
        code, text = await self.sh(command, within)
        assert code == 0, f"{command!r} ended with {code}: {text}"
        return text

    async def qmp(self, command: str, **arguments: Any) -> Any:
        """Ask the machine's monitor (QEMU QMP reference)."""
        self._count += 1
        asked = {"execute": command, "arguments": arguments, "id": self._count}
        mark = self.monitor.mark()
        self.monitor.write(json.dumps(asked))
        line = await self.monitor.expect(rf'^.*"id": {self._count}\b.*$', since=mark, within=20)
        answer = json.loads(line[0])
        assert "return" in answer, f"{command} {arguments}: {answer}"
        return answer["return"]

    async def status(self) -> StatusSnapshot:
        """What the agent says now."""
        _, text = await self.sh("extsloaderctl status --json")
        return msgspec.json.decode(text, type=StatusSnapshot)

    async def until(self, state: str, *, since: int = 0, within: float = PATIENCE) -> str:
        """Wait for a change of the agent's state as its journal tells it; the whole line."""
        line = rf"^agent: \S+ -> {state}\b.*$"
        return (await self.journal.expect(line, since=since, within=within))[0]

    async def attach(self, name: str, source: Path, via: Via, *, rate: int = 0) -> None:
        """Plug in a medium: an image, or for vvfat a directory; `rate` in bytes a second."""
        driver = {"driver": "vvfat", "dir": str(source)}
        if via is not Via.VVFAT:
            driver = {"driver": "file", "filename": str(source)}
        node: dict[str, Any] = {"driver": "raw", "file": driver | {"read-only": True}}
        if rate:
            group = {"id": f"{name}-rate", "limits": {"bps-read": rate}}
            await self.qmp("object-add", **{"qom-type": "throttle-group"}, **group)
            node = {"driver": "throttle", "throttle-group": group["id"], "file": node}
        node |= {"node-name": name, "read-only": True}
        await self.qmp("blockdev-add", **node)
        where: dict[str, Any] = {"driver": "virtio-blk-pci", "bus": "port0"}
        if via in (Via.VVFAT, Via.USB):
            where = {"driver": "usb-storage", "bus": "xhci.0", "removable": True}
        await self.qmp("device_add", **where, drive=name, id=f"{name}-device", serial=name)
        self.attached.add(name)

    async def detach(self, name: str) -> None:
        """Pull out a medium, whatever the guest is doing with it."""
        mark = self.monitor.mark()
        await self.qmp("device_del", id=f"{name}-device")
        gone = rf'"DEVICE_DELETED".*"device": "{name}-device"'
        await self.monitor.expect(gone, since=mark, within=30)
        await self.qmp("blockdev-del", **{"node-name": name})
        self.attached.discard(name)
        groups = await self.qmp("qom-list", path="/objects")
        if any(entry["name"] == f"{name}-rate" for entry in groups):
            await self.qmp("object-del", id=f"{name}-rate")

    async def open_shell(self) -> None:
        """Wait for the root shell, then let the agent's journal run along on a line of its own."""
        async with asyncio.timeout(PATIENCE):
            while not await self._answers():
                pass
        await self.run(
            "SYSTEMD_COLORS=0 setsid journalctl -f -n all -o cat -u extsloaderd >/dev/ttyS2 &"
        )

    async def power_cut(self) -> None:
        """The machine is gone from one instruction to the next."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def tails(self) -> str:
        """The end of all that it said, for the message of a failure."""
        ends = (self.console, self.shell, self.journal)
        return "\n".join(f"--- {s.name} ends with\n{s.text[-TAIL:]}" for s in ends)

    async def _answers(self) -> bool:
        """Whatever is written before the shell opens its terminal is lost."""
        self.shell.write("\nstty -echo; PS1=; PS2=\n")
        try:
            return await self.sh("true", within=1) == (0, "")
        except AssertionError:
            assert self._process.returncode is None, "the guest has ended"
            return False


@asynccontextmanager
async def booted(machine: Machine, *extra: str) -> AsyncIterator[Guest]:
    """Start a machine; it is killed in the end, and with the tests if they are killed."""
    async with AsyncExitStack() as stack:
        pairs = [socket.socketpair() for _ in (*SERIALS, "monitor")]
        inner = [theirs.fileno() for _, theirs in pairs]
        argv = [
            *KILLED_WITH_PARENT,
            *plan_machine(machine, find_accelerator(), [f"chardev:{name}" for name in SERIALS]),
            *_chardevs(inner), "-mon", "chardev=monitor,mode=control", "-no-reboot",
            "-device", "pcie-root-port,id=port0,chassis=1,slot=1", *extra,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, pass_fds=inner
        )
        guest = Guest(process)
        stack.push_async_callback(guest.power_cut)
        loop = asyncio.get_running_loop()
        streams = (guest.console, guest.shell, guest.journal, guest.monitor)
        for (ours, theirs), stream in zip(pairs, streams, strict=True):
            theirs.close()
            transport, _ = await loop.create_connection(partial(_same, stream), sock=ours)
            stack.callback(transport.close)
        try:
            await guest.qmp("qmp_capabilities")
            yield guest
        except BaseException as error:
            error.add_note(guest.tails())
            raise


def _same(stream: Stream) -> Stream:
    return stream


def _chardevs(descriptors: list[int]) -> list[str]:
    named = zip((*SERIALS, "monitor"), descriptors, strict=True)
    return [
        word
        for name, descriptor in named
        for word in ("-chardev", f"socket,id={name},fd={descriptor}")
    ]
