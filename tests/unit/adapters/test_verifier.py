"""Helpers that misbehave: each end has a name, and none leaves a process or a descriptor behind.

The helper here is a script in the interpreter's place; the real one is in tests/integration.
"""

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.adapters.verifier import Verifier, helpers
from extsloader.model.errors import ImageRefusedError
from extsloader.model.ids import SourceId
from extsloader.model.machine import Machine
from extsloader.model.reasons import Code
from extsloader.model.settings import Timeouts
from extsloader.model.source import Filters, FsType, Source, SourceKind, Superblock
from extsloader.model.trust import Bounds
from tests.fakes.images import names

SOURCE = Source(id=SourceId("/dev/extst", "1"), kind=SourceKind.DEVICE, size=4096, devno="7:0")

PROGRESS = """say(b'{"progress":{"done":1,"total":2}}')"""
REFUSED_PACKET = """b'{"refused":{"code":"E_DIGEST","message":"cannot","hint":"do"}}'"""
REFUSED = f"say({REFUSED_PACKET})"
SUPERBLOCK = """say(b'{"superblock":{"fs_type":"squashfs","used":7}}')"""
HANG = "signal.pause()"


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = names("/proc/self/fd")
    yield
    assert names("/proc/self/fd") == before


def helper(tmp_path: Path, *lines: str, timeout: float = 10.0) -> Verifier:
    """A verifier whose helper runs these lines; it leaves its pid in a file."""
    script = tmp_path / "helper"
    head = (
        f"#!{sys.executable}",
        "import array, os, signal, socket, sys",
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))",
        "channel = socket.socket(fileno=0)",
        "say = channel.send",
        "request = channel.recv(1 << 20)",
    )
    script.write_text("\n".join((*head, *lines)) + "\n")
    script.chmod(0o700)
    return Verifier(
        keys="/keys",
        store="/store",
        machine=Machine(arch="amd64"),
        timeouts=Timeouts(probe=timeout, verify=timeout),
        files=Filters().files,
        wall=lambda: 7.0,
        python=str(script),
    )


def is_gone(tmp_path: Path) -> bool:
    return not Path("/proc", (tmp_path / "pid").read_text()).exists()


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


async def refusal(verifier: Verifier) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        await verifier.verify(SOURCE, Bounds(), lambda _done, _total: None)
    return caught.value.problem.code, caught.value.problem.message


async def test_an_answer_is_passed_on(tmp_path: Path) -> None:
    found = await helper(tmp_path, SUPERBLOCK).probe(SOURCE)
    assert found == Superblock(fs_type=FsType.SQUASHFS, used=7)
    assert is_gone(tmp_path)


async def test_a_refusal_is_passed_on_with_all_it_says(tmp_path: Path) -> None:
    with pytest.raises(ImageRefusedError) as caught:
        await helper(tmp_path, PROGRESS, REFUSED).probe(SOURCE)
    problem = caught.value.problem
    assert (problem.code, problem.message, problem.hint) == (Code.DIGEST, "cannot", "do")


async def test_progress_is_reported_before_the_verdict(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    verifier = helper(tmp_path, PROGRESS, PROGRESS, REFUSED)
    with pytest.raises(ImageRefusedError):
        await verifier.verify(SOURCE, Bounds(), lambda *progress: seen.append(progress))
    assert seen == [(1, 2), (1, 2)]


async def test_the_helper_gets_the_request_and_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    seen = tmp_path / "seen"
    lines = (
        "import json",
        "session = os.getsid(0) == os.getpid()",
        "fds = sorted(map(int, os.listdir('/proc/self/fd')))[:-1]",
        "seen = [request.decode(), dict(os.environ), sys.argv[1:], os.getcwd(), session, fds]",
        f"json.dump(seen, open({str(seen)!r}, 'w'))",
    )
    assert (await refusal(helper(tmp_path, *lines)))[0] is Code.HELPER
    request, environment, argv, directory, session, descriptors = json.loads(seen.read_text())
    assert json.loads(request)["source"]["id"] == {"path": "/dev/extst", "generation": "1"}
    assert json.loads(request)["wall"] == 7.0
    assert environment.keys() - {"LC_CTYPE"} == {"PATH", "LC_ALL", "PYTHONPATH"}
    assert argv == ["-P", "-s", "-m", "extsloader.verify", "verify"]
    assert (directory, session, descriptors) == ("/", True, [0, 1, 2])


FORK = (
    "_, fds, _, _ = socket.recv_fds(channel, 16, 1)",
    "if os.fork() == 0:",
    "    channel = socket.socket(fileno=fds[0])",
    "    socket.send_fds(channel, [b'forked'], [os.pidfd_open(os.getpid())])",
    "    channel.recv(1 << 20)",
)
"""What `extsloader.helper` does for each helper."""


def ready(*lines: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process that forks helpers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    head = ("import os, signal, socket, sys", "channel = socket.socket(fileno=0)")
    with theirs:
        argv = [sys.executable, "-c", "\n".join((*head, *lines))]
        return subprocess.Popen(argv, stdin=theirs.fileno()), ours


async def test_a_process_that_is_ready_forks_the_helper(tmp_path: Path) -> None:
    verifier = helper(tmp_path, SUPERBLOCK)
    process, channel = ready(*FORK, f"    channel.send({REFUSED_PACKET})", "os.wait()")
    verifier.keep(process, channel)
    assert (await refusal(verifier))[0] is Code.DIGEST
    assert not (tmp_path / "pid").exists()
    found = await verifier.probe(SOURCE)  # it has ended meanwhile, and a fresh one answers
    assert found.fs_type is FsType.SQUASHFS
    assert is_gone(tmp_path)


async def test_a_fork_that_hangs_is_killed_at_its_deadline(tmp_path: Path) -> None:
    verifier = helper(tmp_path, REFUSED, timeout=0.5)
    process, channel = ready(*FORK, f"    {HANG}", "os.wait()")
    verifier.keep(process, channel)
    assert (await refusal(verifier))[0] is Code.TIMEOUT
    assert process.wait(10) == 0  # the fork is dead
    assert verifier.stuck() == 0
    assert (await refusal(verifier))[0] is Code.DIGEST


async def test_a_fork_that_ends_without_a_verdict_is_no_verdict(tmp_path: Path) -> None:
    verifier = helper(tmp_path, REFUSED)
    process, channel = ready(*FORK, "    os._exit(0)", "os.wait()")
    verifier.keep(process, channel)
    code, message = await refusal(verifier)
    assert (code, "it ended without a verdict" in message) == (Code.HELPER, True)
    assert (await refusal(verifier))[0] is Code.DIGEST


@pytest.mark.parametrize("line", ["sys.exit()", HANG])
async def test_a_process_that_forks_no_more_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(helpers, "FORK_WITHIN", 0.3)
    verifier = helper(tmp_path, REFUSED)
    verifier.keep(*ready(line))
    loaded = verifier.loaded[0]
    assert (await refusal(verifier))[0] is Code.DIGEST
    async with asyncio.timeout(10):
        await loaded.ended.wait()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("sys.exit(3)",), "exit code 3 without a verdict"),
        (("os.kill(0, signal.SIGKILL)",), "ended by signal 9"),
        (("say(b'junk')",), "its answer makes no sense"),
        (("say(b'{\"refused\":7}')",), "its answer makes no sense"),
        (("say(b' ' * (200 * 1024 + 1))",), "its answer is longer than 204800 bytes"),
        ((SUPERBLOCK,), "something else than one image came back"),
        (("say(b'{}')",), "something else than one image came back"),
        (
            (
                "rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1] * 9))]",
                "channel.sendmsg([b'{}'], rights)",
            ),
            "its answer is longer",
        ),
    ],
)
async def test_a_helper_without_a_verdict_is_no_verdict(
    tmp_path: Path, lines: tuple[str, ...], reason: str
) -> None:
    code, message = await refusal(helper(tmp_path, *lines))
    assert code is Code.HELPER
    assert reason in message
    assert is_gone(tmp_path)


async def test_a_helper_that_does_not_start_is_a_reason_too(tmp_path: Path) -> None:
    (tmp_path / "helper").mkdir()
    verifier = helper(tmp_path / "helper")
    (tmp_path / "helper" / "helper").unlink()
    code, message = await refusal(verifier)
    assert (code, "it does not start: No such file" in message) == (Code.HELPER, True)


async def test_a_helper_that_ends_before_it_listens_has_no_verdict_either(tmp_path: Path) -> None:
    verifier = replace(helper(tmp_path), python="/bin/false")
    code, message = await refusal(verifier)
    assert (code, "exit code 1 without a verdict" in message) == (Code.HELPER, True)


async def test_without_a_free_descriptor_no_helper_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    others = set(children().split())  # of tests before this one, whose end nobody has seen yet
    code, message = await refusal(helper(tmp_path, HANG))
    assert (code, "it does not start: Too many open files" in message) == (Code.HELPER, True)
    assert set(children().split()) <= others


async def test_a_helper_that_hangs_is_killed_at_its_deadline(tmp_path: Path) -> None:
    code, message = await refusal(helper(tmp_path, HANG, timeout=0.3))
    assert code is Code.TIMEOUT
    assert message == "cannot read /dev/extst: no verdict within 0.3 s"
    assert is_gone(tmp_path)


async def test_a_helper_that_falls_silent_is_killed_before_its_deadline(tmp_path: Path) -> None:
    verifier = replace(
        helper(tmp_path, PROGRESS, PROGRESS, HANG), timeouts=Timeouts(silence=0.3, verify=60)
    )
    code, message = await refusal(verifier)
    assert (code, message) == (Code.TIMEOUT, "cannot read /dev/extst: no word for 0.3 s")
    assert is_gone(tmp_path)
    assert verifier.stuck() == 0


async def test_cancelling_kills_and_reaps(tmp_path: Path) -> None:
    begun = asyncio.Event()
    verifier = helper(tmp_path, PROGRESS, HANG)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(verifier.verify(SOURCE, Bounds(), lambda *_: begun.set()))
        await begun.wait()
        task.cancel()
    assert task.cancelled()
    assert is_gone(tmp_path)


async def test_the_loop_goes_on_while_helpers_work(tmp_path: Path) -> None:
    async def one(number: int) -> Superblock:
        directory = tmp_path / str(number)
        directory.mkdir()
        return await helper(directory, SUPERBLOCK).probe(SOURCE)

    found = await asyncio.gather(*(one(number) for number in range(8)))
    assert {superblock.used for superblock in found} == {7}
    assert all(is_gone(tmp_path / str(number)) for number in range(8))


async def test_a_verdict_without_use_closes_its_descriptor(tmp_path: Path) -> None:
    lines = (
        "rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1]))]",
        "channel.sendmsg([b'{}'], rights)",
    )
    assert (await refusal(helper(tmp_path, *lines)))[0] is Code.HELPER
