"""`extsloaderctl` as it is started by people and scripts: real processes on a real socket."""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.adapters.status_socket import StatusSocket
from tests.fakes.status import DEGRADED, READY, FakeControl, FakeStatus

ROOT = Path(__file__).parents[2]
CTL = f"{sys.executable} -m extsloader.ctl.main"


@pytest.fixture
async def status(tmp_path: Path) -> AsyncIterator[FakeStatus]:
    status = FakeStatus()
    server = await StatusSocket(status, FakeControl(), str(tmp_path / "s.sock")).start()
    yield status
    await server.close()


async def _shell(
    script: str, folder: Path, environ: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "EXTSLOADER_SOCKET": str(folder / "s.sock"),
        **(environ or {}),
    }
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, env=environ, stdin=-3, stdout=-1, stderr=-1
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_script_waits_for_the_device(status: FakeStatus, tmp_path: Path) -> None:
    await status.publish(DEGRADED)
    waiting = asyncio.gather(
        _shell(f"{CTL} wait --timeout 30 && echo go", tmp_path), _heal_when_watched(status)
    )
    (answer, _) = await waiting
    assert answer == (0, "ready\ngo\n", "")


async def _heal_when_watched(status: FakeStatus) -> None:
    await status.wait_for_waiters(1)
    await status.publish(replace(READY, generation=9))


@pytest.mark.usefixtures("status")
async def test_without_a_terminal_there_are_no_colours(tmp_path: Path) -> None:
    code, out, err = await _shell(f"{CTL} status", tmp_path, {"LC_ALL": "C"})
    assert (code, err) == (0, "")
    assert "\x1b" not in out


@pytest.mark.usefixtures("status")
@pytest.mark.parametrize(
    ("environ", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
async def test_on_a_terminal(tmp_path: Path, environ: dict[str, str], colours: bool) -> None:
    here, there = pty.openpty()
    os.set_blocking(here, False)
    tty = os.ttyname(there)
    code, _, err = await _shell(f"{CTL} status > {tty}", tmp_path, environ)
    assert (code, err) == (0, "")
    assert (b"\x1b[32mready" in os.read(here, 65536)) is colours
    os.close(here)
    os.close(there)


async def test_a_reader_that_has_seen_enough_is_no_error(
    status: FakeStatus, tmp_path: Path
) -> None:
    for _ in range(3000):
        await status.add("ready", "removing")
    script = f"{CTL} events | head -1; echo ${{PIPESTATUS[0]}}"
    code, out, err = await _shell(script, tmp_path)
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "0"


async def test_no_daemon_is_3_and_wrong_usage_2(tmp_path: Path) -> None:
    script = f"{CTL} status; echo $?; {CTL} nonsense; echo $?"
    _, out, err = await _shell(script, tmp_path)
    assert out == "3\n2\n"
    assert "hint: is extsloaderd running?" in err
    assert "Traceback" not in err


async def test_curl_can_ask_too(status: FakeStatus, tmp_path: Path) -> None:
    await status.add("ready", "removing")
    url = f"curl -sS --unix-socket {tmp_path}/s.sock http://localhost/v1"
    code, out, err = await _shell(
        f"{url}/healthz; echo; {url}/events -m 0.3 || echo timeout", tmp_path
    )
    lines = out.splitlines()
    assert '"state":"ready"' in lines[0]
    assert lines[1:3] == ["id: 1", "event: change"]
    assert (code, lines[-1]) == (0, "timeout")
    assert "timed out" in err


@pytest.mark.usefixtures("status")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("exp", ["explain"]),
        ("explain ''", ["collector"]),
        ("wait --for re", ["ready"]),
        ("events --f", ["--follow"]),
        ("completion ''", ["bash"]),
    ],
)
async def test_bash_completes(tmp_path: Path, words: str, expected: list[str]) -> None:
    script = f"""
        extsloaderctl() {{ {CTL} "$@"; }}
        source <(extsloaderctl completion bash)
        COMP_WORDS=(extsloaderctl {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _extsloaderctl 2>/dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    _, out, _ = await _shell(script, tmp_path)
    assert out.split() == expected


async def test_the_online_verbs_load_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from extsloader.ctl import online;"
        "print(sorted({'asyncio', 'pydantic', 'cryptography', 'tenacity'} & set(sys.modules)))"
    )
    _, out, _ = await _shell(f'{sys.executable} -c "{code}"', tmp_path)
    assert out == "[]\n"
