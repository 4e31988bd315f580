"""The log, as a person, as the journal and as a collector read it."""

import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from extsloader.adapters.journal import Journal, LibraryLog, LineWriter, open_journal
from extsloader.model.reasons import Code
from extsloader.model.status import Change

CHANGE = Change(
    id=5,
    wall=1_700_000_000.0,
    subject="service telemetry",
    old="ready",
    new="backing-off",
    reason="exit code 1",
    code=Code.EXIT,
)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    here, there = os.pipe()
    yield here, there
    os.close(here)
    os.close(there)


def _read(here: int) -> str:
    return os.read(here, 1 << 16).decode()


def test_a_change_for_people(pipe: tuple[int, int]) -> None:
    journal = open_journal("text", pipe[1], {})
    journal.write_change(CHANGE)
    journal.writer.close()
    assert _read(pipe[0]) == (
        "2023-11-14T22:13:20Z warning service telemetry: ready -> backing-off: "
        "exit code 1 [E_EXIT]\n"
    )


def test_a_change_for_the_journal_has_a_priority_and_no_time(pipe: tuple[int, int]) -> None:
    info = os.fstat(pipe[1])
    environ = {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}
    journal = open_journal("text", pipe[1], environ)
    journal.write_change(CHANGE)
    journal.writer.close()
    assert _read(pipe[0]) == ("<4>service telemetry: ready -> backing-off: exit code 1 [E_EXIT]\n")


def test_a_change_for_programs(pipe: tuple[int, int]) -> None:
    journal = open_journal("json", pipe[1], {})
    journal.write_change(CHANGE)
    journal.writer.close()
    assert json.loads(_read(pipe[0])) == {
        "msg": "change",
        "pid": os.getpid(),
        "source": "extsloader",
        "level": "warning",
        "time": "2023-11-14T22:13:20Z",
        "id": 5,
        "subject": "service telemetry",
        "old": "ready",
        "new": "backing-off",
        "reason": "exit code 1",
        "code": "E_EXIT",
    }


@pytest.mark.parametrize(
    ("new", "level"),
    [("ready", 6), ("probing", 6), ("refused", 4), ("degraded", 4), ("parked", 3), ("failed", 3)],
)
def test_the_level_follows_from_the_new_state(pipe: tuple[int, int], new: str, level: int) -> None:
    info = os.fstat(pipe[1])
    environ = {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}
    journal = open_journal("text", pipe[1], environ)
    journal.write_change(Change(subject="agent", old="x", new=new))
    journal.writer.close()
    assert _read(pipe[0]) == f"<{level}>agent: x -> {new}\n"


def test_what_comes_from_outside_cannot_forge_lines(pipe: tuple[int, int]) -> None:
    journal = open_journal("text", pipe[1], {})
    journal.write_change(Change(subject="a\nb", old="\x1b[2J", new="\u202e", reason="\udcff"))
    journal.writer.close()
    assert _read(pipe[0]).endswith(r"a\nb: \x1b[2J -> \u202e: \udcff" + "\n")


def test_other_messages_show_their_fields(pipe: tuple[int, int]) -> None:
    journal = open_journal("text", pipe[1], {})
    journal.log.info("listening", path="/run/x.sock")
    journal.writer.close()
    assert _read(pipe[0]).endswith("info    listening path=/run/x.sock\n")


def test_other_messages_say_why(pipe: tuple[int, int]) -> None:
    journal = open_journal("text", pipe[1], {})
    journal.log.critical("stopped", code="E_BUSY", reason="one runs already", hint="stop it")
    journal.writer.close()
    assert _read(pipe[0]).endswith("stopped: one runs already [E_BUSY] hint=stop it\n")


def test_a_reader_that_stopped_costs_lines_but_no_time(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    for number in range(1000):
        writer.msg(f"{number} " + "x" * 1000)
    lost = writer.lost
    first = _read(pipe[0])
    writer.msg("again")
    writer.close()
    assert lost > 0
    assert first.count("\n") + lost == 1000
    assert _read(pipe[0]) == f"{lost} lines of the log were lost here\nagain\n"


def test_the_shared_descriptor_keeps_blocking(pipe: tuple[int, int]) -> None:
    LineWriter(pipe[1]).close()
    assert os.get_blocking(pipe[1])


def test_a_stream_socket_as_the_journal_has_it() -> None:
    here, there = socket.socketpair()
    with here, there:
        writer = LineWriter(there.fileno())
        writer.msg("hello")
        assert here.recv(100) == b"hello\n"
        for _ in range(5000):
            writer.msg("x" * 1000)
        assert writer.lost
        writer.close()
        assert there.getblocking()


def test_a_line_is_cut_to_what_a_pipe_takes_whole(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    writer.msg("x" * 10000)
    writer.close()
    assert _read(pipe[0]) == "x" * 4095 + "\n"


def test_a_closed_reader_is_no_error() -> None:
    here, there = os.pipe()
    writer = LineWriter(there)
    os.close(here)
    writer.msg("nobody reads this")
    assert writer.lost == 1
    writer.close()
    os.close(there)


def test_libraries_log_into_the_same_journal(pipe: tuple[int, int]) -> None:
    journal = open_journal("text", pipe[1], {})
    _log_an_error(journal)
    journal.writer.close()
    line = _read(pipe[0])
    assert "error   boom logger=extst-library error=ZeroDivisionError: division by zero" in line
    assert "test_journal.py:" in line


def test_a_surprise_says_what_it_was_and_where(pipe: tuple[int, int]) -> None:
    journal = open_journal("text", pipe[1], {})
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        journal.log.exception("surprise", effect="Probe")
    journal.writer.close()
    line = _read(pipe[0])
    assert "surprise effect=Probe error=ZeroDivisionError: division by zero place=" in line
    assert "test_journal.py:" in line


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_a_long_reason_is_cut_so_that_programs_can_read_the_line(
    pipe: tuple[int, int], letter: str
) -> None:
    journal = open_journal("json", pipe[1], {})
    journal.write_change(replace(CHANGE, reason=letter * 5000))
    journal.writer.close()
    fields = json.loads(_read(pipe[0]))
    assert set(fields["reason"]) == {letter}
    assert (fields["subject"], fields["code"]) == ("service telemetry", "E_EXIT")


def _log_an_error(journal: Journal) -> None:
    logger = logging.getLogger("extst-library")
    logger.propagate = False
    handler = LibraryLog(journal)
    logger.addHandler(handler)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logger.exception("boom\nwith more lines")
    logger.removeHandler(handler)


def test_a_line_for_newlogd_has_sorted_keys_and_logrus_levels(pipe: tuple[int, int]) -> None:
    journal = open_journal("json", pipe[1], {})
    journal.log.critical("stopped", code="E_BUSY")
    journal.writer.close()
    line = _read(pipe[0])
    fields = json.loads(line)
    assert list(fields) == sorted(fields)
    assert (fields["level"], fields["msg"]) == ("fatal", "stopped")


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("all", "debug info warning error critical"),
        ("debug", "debug info warning error critical"),
        ("info", "info warning error critical"),
        ("warn", "warning error critical"),
        ("error", "error critical"),
        ("panic", "critical"),
        ("none", ""),
    ],
)
def test_the_level_can_change_while_the_agent_runs(
    pipe: tuple[int, int], level: str, written: str
) -> None:
    journal = open_journal("text", pipe[1], {})
    journal.set_level(level)
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(journal.log, name)("x")
    journal.writer.msg("- end")
    journal.writer.close()
    levels = [line.split()[1] for line in _read(pipe[0]).splitlines()]
    assert levels == [*written.split(), "end"]
