"""What conmon and the runtimes write, as recorded from conmon 2.1, runc 1.1 and crun 1.8."""

from itertools import pairwise
from pathlib import Path

import pytest

from extsloader.adapters.oci.conmon import (
    command_line,
    find_reason,
    log_to_file,
    read_cause,
    read_pid,
)
from extsloader.model.events import Cause, CauseKind

RUNC_REFUSES = (
    'time="2026-11-25T02:02:09Z" level=warning msg="cannot toggle freezer"\n'
    'time="2026-11-25T02:02:09Z" level=fatal msg="nsexec[1]: failed to update oom score"\n'
    'time="2026-11-25T02:02:09Z" level=error msg="runc create failed: exec: \\"/bin/nope\\"\\n"\n'
)


def test_the_pid_is_read_from_the_answer() -> None:
    assert read_pid(b'{"data": 9743}\n', "") == 9743


@pytest.mark.parametrize(
    ("answer", "errors", "reason"),
    [
        (b"", "", "conmon ended without an answer"),
        (b"", "conmon: option parsing failed\n", "conmon: option parsing failed"),
        (b"[]", "", "conmon ended without an answer"),
        (b'{"data": -1}', "", "conmon answered -1"),
        (b'{"data": "x"}', "", "conmon answered x"),
        (b'{"data": -1, "message": "crun: not found"}', "", "crun: not found"),
    ],
)
def test_no_pid_comes_with_a_reason(answer: bytes, errors: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_pid(answer, errors)


def test_all_errors_of_runc_are_told_without_its_decoration() -> None:
    assert find_reason(RUNC_REFUSES) == (
        'nsexec[1]: failed to update oom score; runc create failed: exec: "/bin/nope"'
    )


def test_the_last_line_of_other_programs_is_told() -> None:
    assert find_reason("one\ncrun: cgroups in hybrid mode not supported\n") == (
        "crun: cgroups in hybrid mode not supported"
    )
    assert find_reason("") == ""
    assert len(find_reason("x" * 10_000)) == 500


@pytest.mark.parametrize(
    ("written", "oom", "cause"),
    [
        ("0", False, Cause(CauseKind.CODE, 0)),
        ("7", False, Cause(CauseKind.CODE, 7)),
        ("137", False, Cause(CauseKind.SIGNAL, 9)),
        ("255", False, Cause(CauseKind.CODE, 255)),
        ("137", True, Cause(CauseKind.OOM)),
        ("7", True, Cause(CauseKind.OOM)),
        ("0", True, Cause(CauseKind.CODE, 0)),
        (None, True, Cause(CauseKind.LOST)),
        ("", False, Cause(CauseKind.LOST)),
    ],
)
def test_the_cause_of_an_end(tmp_path: Path, written: str | None, oom: bool, cause: Cause) -> None:
    (tmp_path / "exits").mkdir()
    if written is not None:
        (tmp_path / "exits/zeta").write_text(written)
    if oom:
        (tmp_path / "oom").touch()
    assert read_cause(tmp_path, "zeta") == cause


def test_the_command_line_bounds_the_log_and_stays_our_child() -> None:
    runtime = ("/usr/sbin/runc", "--root", "/r")
    log = log_to_file("/l", 1 << 20)
    line = command_line("/usr/bin/conmon", runtime, "zeta", Path("/d"), log)
    pairs = list(pairwise(line))
    assert line[:3] == ("/usr/bin/env", "--chdir=/d", "/usr/bin/conmon")
    assert "--sync" in line
    assert ("--log-size-max", f"{1 << 20}") in pairs
    assert ("--runtime", "/usr/sbin/runc") in pairs
    assert ("--runtime-arg=--root", "--runtime-arg=/r") in pairs
