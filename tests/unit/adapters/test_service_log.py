"""The last words of a service, and where all the others went."""

import os
from pathlib import Path

import pytest

from extsloader.adapters.service_log import LINES, MAX_BYTES, ServiceLogs
from extsloader.model.ids import ServiceName
from tests.fakes.memlogd import Memlogd

A = ServiceName("a")
SIZE = 1000


@pytest.fixture
def logs(tmp_path: Path) -> ServiceLogs:
    return ServiceLogs(f"{tmp_path}", SIZE)


def line(text: str, kind: str = "F") -> str:
    return f"2026-11-25T03:38:01.123456789+00:00 stdout {kind} {text}\n"


def begin_anew(directory: Path, text: str) -> None:
    """As conmon does with a full file."""
    draft = directory / "a.log.tmp"
    draft.write_text(line(text))
    draft.rename(directory / "a.log")


def test_the_last_lines_are_read_oldest_first(logs: ServiceLogs, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("".join(line(f"word {n}") for n in range(20)))
    assert logs.read_tail(A) == tuple(f"word {n}" for n in range(15, 20))


def test_a_long_log_is_read_from_its_end_only(logs: ServiceLogs, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(line("x" * MAX_BYTES) + line("the end"))
    assert logs.read_tail(A) == ("the end",)


def test_what_is_no_text_is_shown_as_far_as_it_is(logs: ServiceLogs, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(line("caf").encode()[:-1] + b"\xe9\n\n" + b"half a li")
    (shown,) = logs.read_tail(A)
    assert shown == "caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\rb\x0bc\x85d\u2028e", r"a\rb\x0bc\x85d\u2028e"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
    ],
)
def test_what_drives_terminals_is_escaped(
    logs: ServiceLogs, tmp_path: Path, said: str, shown: str
) -> None:
    (tmp_path / "a.log").write_text(line(said), newline="")
    assert logs.read_tail(A) == (shown,)


def test_no_log_a_link_and_a_fifo_give_nothing(logs: ServiceLogs, tmp_path: Path) -> None:
    assert logs.read_tail(A) == ()
    (tmp_path / "a.log").symlink_to("/etc/hostname")
    assert logs.read_tail(A) == ()
    os.mkfifo(tmp_path / "b.log")
    assert logs.read_tail(ServiceName("b")) == ()


def test_no_more_lines_than_promised(logs: ServiceLogs, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(line("") * 100)
    assert len(logs.read_tail(A)) == LINES


def test_a_log_that_was_started_anew_goes_on_from_the_older_one(
    logs: ServiceLogs, tmp_path: Path
) -> None:
    (tmp_path / "a.log").write_text(line("one"))
    logs.keep()
    begin_anew(tmp_path, "two")
    assert logs.read_tail(A) == ("one", "two")
    begin_anew(tmp_path, "three")
    logs.keep()
    logs.keep()
    assert logs.read_tail(A) == ("two", "three")
    assert (tmp_path / "a.log.1").read_text() == line("two")


def test_what_the_agent_did_not_see_costs_only_that(logs: ServiceLogs, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(line("one"))
    logs.keep()
    for word in ("two", "three"):  # meanwhile there is no agent
        begin_anew(tmp_path, word)
    assert logs.read_tail(A) == ("one", "three")


def test_restarts_append_to_a_file_that_never_grows_beyond_its_size(
    logs: ServiceLogs, tmp_path: Path
) -> None:
    for number in range(100):  # it crashes after a few words each time
        path, left = logs.make_room(A)
        assert left >= SIZE // 2
        with Path(path).open("a") as file:
            file.write(line(f"{number}"))
        assert Path(path).stat().st_size <= SIZE
        logs.keep()
    assert logs.read_tail(A)[-2:] == ("98", "99")
    assert sum(path.stat().st_size for path in tmp_path.glob("a.log*")) <= 2 * SIZE
    assert len(list(tmp_path.iterdir())) == 3


def test_streams_go_to_memlogd_under_the_names_of_linuxkit(tmp_path: Path) -> None:
    logs = ServiceLogs(f"{tmp_path}", SIZE, f"{tmp_path}/memlogd")
    (tmp_path / "a.log").write_text(line("old"))
    logs.keep()
    with Memlogd.listening(tmp_path / "memlogd") as memlogd:
        streams = {name: os.pipe() for name in ("a.out", "a")}
        assert logs.pass_on(A, streams["a.out"][0], streams["a"][0])
        for name, (reader, writer) in streams.items():
            os.close(reader)
            os.write(writer, f"from {name}".encode())
            os.close(writer)
        assert [memlogd.read(name) for name in streams] == ["from a.out", "from a"]
    assert logs.read_tail(A) == ()  # nobody takes an old file for the newest words
    assert logs.describe(A) == "memlogd's, as a and a.out"


@pytest.mark.parametrize("socket", ["", "{}/none", "{}/deaf"])
def test_without_memlogd_there_are_files(tmp_path: Path, socket: str) -> None:
    logs = ServiceLogs(f"{tmp_path}", SIZE, socket.format(tmp_path))
    with Memlogd.listening(tmp_path / "closed"):
        (tmp_path / "closed").rename(tmp_path / "deaf")
    assert not logs.pass_on(A, 0, 0)
    Path(logs.make_room(A)[0]).touch()
    assert logs.describe(A) == f"{tmp_path}/a.log"


def test_a_memlogd_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    logs = ServiceLogs(f"{tmp_path}", SIZE, f"{tmp_path}/memlogd")
    with Memlogd.listening(tmp_path / "memlogd"):
        taken = [logs.pass_on(A, 0, 0) for _ in range(3000)]
    assert taken[0]
    assert not taken[-1]
