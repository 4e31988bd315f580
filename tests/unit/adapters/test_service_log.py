"""The last words of a service."""

import os
from pathlib import Path

from extsloader.adapters.service_log import LINES, MAX_BYTES, ServiceLogs
from extsloader.model.ids import ServiceName

A = ServiceName("a")


def line(text: str, kind: str = "F") -> str:
    return f"2026-11-25T03:38:01.123456789+00:00 stdout {kind} {text}\n"


def test_the_last_lines_are_read_oldest_first(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("".join(line(f"word {n}") for n in range(20)))
    assert ServiceLogs(str(tmp_path)).read_tail(A) == tuple(f"word {n}" for n in range(15, 20))


def test_a_long_log_is_read_from_its_end_only(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(line("x" * MAX_BYTES) + line("the end"))
    assert ServiceLogs(str(tmp_path)).read_tail(A) == ("the end",)


def test_what_is_no_text_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(line("caf").encode()[:-1] + b"\xe9\n\n" + b"half a li")
    assert ServiceLogs(str(tmp_path)).read_tail(A) == ("caf\N{REPLACEMENT CHARACTER}",)


def test_no_log_a_link_and_a_fifo_give_nothing(tmp_path: Path) -> None:
    logs = ServiceLogs(str(tmp_path))
    assert logs.read_tail(A) == ()
    (tmp_path / "a.log").symlink_to("/etc/hostname")
    assert logs.read_tail(A) == ()
    os.mkfifo(tmp_path / "b.log")
    assert logs.read_tail(ServiceName("b")) == ()


def test_no_more_lines_than_promised(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(line("") * 100)
    assert len(ServiceLogs(str(tmp_path)).read_tail(A)) == LINES
