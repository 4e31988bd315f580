"""Running other programs: their end, their words and their deadline, without threads."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from extsloader.adapters.oci.processes import (
    ENVIRONMENT,
    Ended,
    identify,
    keep_descriptors,
    kill,
    memory_file,
    open_process,
    readable,
    reap,
    run,
    spawn,
)

SH = "/bin/sh"


async def test_a_program_tells_its_code_and_its_words() -> None:
    ended = await run((SH, "-c", "echo out; echo err >&2; exit 3"), 5)
    assert ended == Ended(3, "out\n", "err\n")
    assert threading.active_count() == 1


async def test_a_killed_program_tells_the_signal() -> None:
    assert (await run((SH, "-c", "kill -9 $$"), 5)).code == -9


async def test_a_program_that_is_missing_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        await run(("/no/such/program",), 5)


async def test_a_program_gets_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    stray = os.dup(0)
    os.set_inheritable(stray, True)
    keep_descriptors()
    ended = await run((SH, "-c", "env; cat; echo /proc/$$/fd/*"), 5)
    os.close(stray)
    assert "NOTIFY_SOCKET" not in ended.output
    numbers = [path.rpartition("/")[2] for path in ended.output.splitlines()[-1].split()]
    assert set(numbers) <= {"0", "1", "2", "3"}  # 3: the shell's own, for the pattern


async def test_a_program_leads_a_session_of_its_own() -> None:
    ended = await run((SH, "-c", "cut -d ' ' -f 1,6 /proc/$$/stat"), 5)
    pid, session = ended.output.split()
    assert pid == session


async def test_a_grandchild_that_holds_the_output_is_not_waited_for() -> None:
    ended = await run((SH, "-c", "sleep 1000 & echo $!"), 5)
    os.kill(int(ended.output), signal.SIGKILL)
    assert ended.code == 0


async def gone(pid: int) -> None:
    """Wait until a process that was killed is dead."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            async with asyncio.timeout(10):
                await readable(pidfd)
        finally:
            os.close(pidfd)


@pytest.fixture
def pipe() -> Iterator[tuple[int, str]]:
    """A descriptor to read from, and where a script finds the other end."""
    reader, writer = os.pipe()
    yield reader, f"/proc/{os.getpid()}/fd/{writer}"
    os.close(reader)
    os.close(writer)


async def test_a_program_that_takes_too_long_is_killed_with_its_children(
    pipe: tuple[int, str],
) -> None:
    reader, target = pipe
    with pytest.raises(TimeoutError):
        await run((SH, "-c", f"sleep 1000 & echo $! $$ > {target}; wait"), 0.2)
    child, program = map(int, os.read(reader, 100).split())
    assert identify(program) is None
    await gone(child)


async def test_cancelling_kills_the_program(pipe: tuple[int, str]) -> None:
    reader, target = pipe
    argv = (SH, "-c", f"echo $$ > {target}; exec sleep 1000")
    task = asyncio.get_running_loop().create_task(run(argv, 100))
    await readable(reader)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert identify(int(os.read(reader, 100))) is None


async def test_one_that_lost_its_work_may_end_by_itself() -> None:
    ends = []

    def end_work(pid: int) -> bool:
        os.kill(pid, signal.SIGTERM)
        ends.append(pid)
        return True

    with pytest.raises(TimeoutError):
        await run(("/bin/sleep", "1000"), 0.1, end_work)
    assert identify(ends[0]) is None


async def test_a_process_is_found_again_by_pid_and_start() -> None:
    with memory_file() as output, memory_file() as errors:
        pid, pidfd = spawn(("/bin/sleep", "1000"), ENVIRONMENT, output, errors)
    identity = identify(pid)
    assert identity is not None
    assert identity.parent == os.getpid()
    again = open_process(identity)
    assert again is not None
    kill(again, signal.SIGKILL)
    await readable(again)
    os.close(again)
    assert open_process(identity) is None  # a zombie is nobody
    assert reap(pidfd) == -9
    assert open_process(identity) is None


def test_another_process_with_the_same_number_is_not_taken_for_it() -> None:
    me = identify(os.getpid())
    assert me is not None
    stranger = type(me)(pid=me.pid, started=me.started - 1, parent=me.parent)
    assert open_process(stranger) is None


async def test_a_name_with_parentheses_does_not_confuse(pipe: tuple[int, str]) -> None:
    reader, target = pipe
    argv = (SH, "-c", f"echo ') R 1 (' > /proc/$$/comm; echo $$ > {target}; sleep 1000")
    task = asyncio.get_running_loop().create_task(run(argv, 100))
    await readable(reader)
    identity = identify(int(os.read(reader, 100)))
    task.cancel()
    assert identity is not None
    assert identity.parent == os.getpid()


async def test_somebody_elses_child_is_only_forgotten() -> None:
    pidfd = os.pidfd_open(os.getppid())
    assert reap(pidfd) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(pidfd)
