"""What is asked of containerd: the services Containers and Tasks of its API, version 1.

Field numbers are those of containerd's api/services/{containers,tasks}/v1 and
api/types/task/task.proto; they are the same in 1.6, 1.7 and 2.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from extsloader.adapters.containerd.grpc import NOT_FOUND, GrpcError, call
from extsloader.adapters.containerd.protobuf import Reader, Value, encode
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

RUNTIME = "io.containerd.runc.v2"
EXEC_FAILED = 255  # as runc's own exit code is
_SPEC = "types.containerd.io/opencontainers/runtime-spec/1/"
_REFUSED = "compare the reason with the service's config.json in the image"
_AWAY = "see whether containerd runs, and paths.containerd"


RUNNING, STOPPED, PAUSED, PAUSING = 2, 3, 4, 5
"""States of a task; 1 is created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The process of a container."""

    pid: int
    state: int
    code: int  # after its end


class Client:
    """Each call is one question; `deadline` is in seconds."""

    def __init__(self, socket: str, deadline: float) -> None:
        self._socket = socket
        self._deadline = deadline

    async def add_container(self, name: str, labels: Mapping[str, str], spec: str) -> None:
        """Raises MachineError."""
        container = encode({1: name, 4: encode({1: RUNTIME}), 5: _any("Spec", spec)})
        container += b"".join(encode({2: encode({1: k, 2: v})}) for k, v in labels.items())
        await self._ask(f"create container {name}", "Containers/Create", {1: container})

    async def find_labels(self, name: str) -> dict[str, str] | None:
        """None where there is no such container. Raises MachineError."""
        found = await self._find(f"find container {name}", "Containers/Get", {1: name})
        return None if found is None else _labels(found.message(1))

    async def list_labels(self) -> dict[str, dict[str, str]]:
        """Of all containers of the namespace. Raises MachineError."""
        found = await self._ask("list containers", "Containers/List", {})
        return {container.text(1): _labels(container) for container in found.messages(1)}

    async def remove_container(self, name: str) -> None:
        """No error where there is none. Raises MachineError."""
        await self._find(f"delete container {name}", "Containers/Delete", {1: name})

    async def create_task(self, name: str, output: str, errors: str) -> int:
        """The process, which waits for its start; returns its pid. Raises MachineError.

        `output` and `errors` are FIFOs; empty: what it writes goes nowhere.
        """
        request: dict[int, Value] = {1: name, 5: output, 6: errors}
        return (await self._ask(f"create container {name}", "Tasks/Create", request)).number(2)

    async def start_task(self, name: str) -> None:
        """Raises MachineError."""
        await self._ask(f"start container {name}", "Tasks/Start", {1: name})

    async def find_task(self, name: str) -> Task | None:
        """None where there is none. Raises MachineError."""
        found = await self._find(f"find the task of {name}", "Tasks/Get", {1: name})
        if found is None:
            return None
        process = found.message(1)
        return Task(pid=process.number(3), state=process.number(4), code=process.number(9))

    async def wait_task(self, name: str) -> int | None:
        """The exit code, as a shell would tell it; None where there is no task.

        Raises MachineError.
        """
        found = await self._find(f"wait for the end of {name}", "Tasks/Wait", {1: name})
        return None if found is None else found.number(1)

    async def kill_task(self, name: str) -> None:
        """SIGKILL for all its processes; no error when they are gone. Raises MachineError."""
        await self._find(f"kill container {name}", "Tasks/Kill", {1: name, 3: 9, 4: 1})

    async def resume_task(self, name: str) -> None:
        """Raises MachineError."""
        await self._ask(f"resume container {name}", "Tasks/Resume", {1: name})

    async def remove_task(self, name: str) -> None:
        """One that has ended; no error where there is none. Raises MachineError."""
        await self._find(f"delete the task of {name}", "Tasks/Delete", {1: name})

    async def read_process(self, name: str) -> dict[str, object]:
        """What the container's specification says of its process. Raises MachineError."""
        found = await self._ask(f"find container {name}", "Containers/Get", {1: name})
        process: dict[str, object] = json.loads(found.message(1).message(5).text(2))["process"]
        return process

    async def execute(
        self, name: str, number: str, process: Mapping[str, object]
    ) -> tuple[int, str]:
        """Run one more process in a container to its end: its exit code, and why it did not start.

        Raises MachineError.
        """
        stage = f"run a command in container {name}"
        this: dict[int, Value] = {1: name, 2: number}
        request: dict[int, Value] = {1: name, 6: _any("Process", json.dumps(process)), 7: number}
        await self._ask(stage, "Tasks/Exec", request)
        try:
            await self._ask(stage, "Tasks/Start", this)
        except MachineError as error:
            return EXEC_FAILED, error.problem.message
        return (await self._ask(stage, "Tasks/Wait", this)).number(1), ""

    async def end_execution(self, name: str, number: str) -> None:
        """Kill and forget it; no error where there is none. Raises MachineError."""
        stage = f"end a command in container {name}"
        this: dict[int, Value] = {1: name, 2: number}
        with suppress(MachineError):  # it has ended, or was never started
            await self._ask(stage, "Tasks/Kill", {**this, 3: 9})
            await self._ask(stage, "Tasks/Wait", this)
        await self._find(stage, "Tasks/DeleteProcess", this)

    async def _find(self, stage: str, method: str, fields: Mapping[int, Value]) -> Reader | None:
        async with _stage(stage, self._deadline):
            try:
                return await self._call(method, fields)
            except GrpcError as error:
                if error.code == NOT_FOUND:
                    return None
                raise

    async def _ask(self, stage: str, method: str, fields: Mapping[int, Value]) -> Reader:
        async with _stage(stage, self._deadline):
            return await self._call(method, fields)

    async def _call(self, method: str, fields: Mapping[int, Value]) -> Reader:
        service = method.partition("/")[0].lower()
        path = f"/containerd.services.{service}.v1.{method}"
        async with asyncio.timeout(self._deadline):
            return Reader(await call(self._socket, path, encode(fields)))


def _any(kind: str, text: str) -> bytes:
    return encode({1: _SPEC + kind, 2: text})


def _labels(container: Reader) -> dict[str, str]:
    return {label.text(1): label.text(2) for label in container.messages(2)}


@asynccontextmanager
async def _stage(stage: str, deadline: float) -> AsyncIterator[None]:
    """Say what was being done when containerd refused, or was not there."""
    try:
        yield
    except TimeoutError:
        reason = f"containerd gave no answer within {deadline:g} s"
        raise MachineError(Code.RUNTIME, stage, reason) from None
    except OSError as error:
        reason = f"containerd: {error.strerror or error}".lower()
        raise MachineError(Code.RUNTIME, stage, reason, _AWAY) from error
    except (GrpcError, ValueError) as error:
        raise MachineError(Code.RUNTIME, stage, f"{error}", _REFUSED) from error
