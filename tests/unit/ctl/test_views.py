"""What an operator sees, letter by letter."""

from dataclasses import replace

import pytest

from extsloader.ctl import views
from extsloader.ctl.text import Style
from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import (
    AgentState,
    CandidateStatus,
    Change,
    PreviousRun,
    ServiceStatus,
    StatusSnapshot,
)
from extsloader.model.trust import Flag, Release
from tests.fakes.status import DEGRADED, EXPLANATION, NOW, READY

PLAIN = Style()


def _shown(text: str) -> str:
    """Golden texts are indented here, and their empty lines are marked."""
    return "\n".join(line[4:] for line in text.strip("\n").split("\n")[:-1])


def test_a_device_that_is_ready() -> None:
    status = replace(READY, reason="all 1 services are ready")
    assert views.show_status(status, NOW, PLAIN) == _shown("""
    ready: all 1 services are ready
    for       1 min
    image     eve-pkgs 14.2.0, sequence 42, 0123456789ab, mounted
              from /dev/sdb1, kept in store, signed by a1b2
    agent     extsloaderd 0.1.0, pid 700, up 3 h 12 min, memory 24M

    SERVICE      STATE  FOR        RESTARTS  MEMORY  LIMIT  WHY
    collector *  ready  2 h 3 min         0     12M   128M
    * essential: without it the device is failed, not degraded
    """)


def test_floors_and_what_is_not_as_it_should_be_are_one_line() -> None:
    floors = (Release(name="eve-pkgs", sequence=42), Release(name="other", sequence=7))
    status = StatusSnapshot(floors=floors, flags=(Flag.FLOOR_OPEN, Flag.CLOCK_UNSURE))
    line = "trust     floor eve-pkgs 42, other 7; floor not tamper evident, clock unsure"
    assert line in views.show_status(status, NOW, PLAIN).split("\n")
    flagged = views.show_status(StatusSnapshot(flags=(Flag.STALE,)), NOW, PLAIN)
    assert "trust     stale" in flagged.split("\n")


def test_a_device_that_is_degraded_says_why_from_top_to_bottom() -> None:
    status = replace(DEGRADED, image=None, agent=None)
    assert views.show_status(status, NOW, PLAIN) == _shown("""
    degraded: telemetry is backing off: exit code 1
    for       1 min

    SERVICE      STATE        FOR        RESTARTS  MEMORY  LIMIT  WHY
    telemetry    backing-off  4 s               3       -   128M  exit code 1 [E_EXIT]; NEXT
    webui        blocked      3 min             0       -   128M  waits for telemetry
    collector *  ready        2 h 3 min         0     12M   128M
    * essential: without it the device is failed, not degraded

    CANDIDATE  SIZE  VERDICT  WHY
    /dev/sdc1   40M  refused  no accepted key signed this manifest [E_SIGNATURE]; HINT

    why: extsloaderctl explain telemetry
    """).replace("NEXT", "next start in 8 s").replace(
        "HINT", "sign the image with a key of this device"
    )


def test_a_device_without_an_image() -> None:
    status = StatusSnapshot(state=AgentState.SEARCHING, reason="no image found yet")
    assert views.show_status(status, NOW, PLAIN) == "searching: no image found yet\nfor       -"


def test_an_image_whose_stick_was_pulled() -> None:
    assert READY.image is not None
    image = replace(READY.image, source_present=False, keys=())
    text = views.show_status(replace(READY, image=image), NOW, PLAIN)
    assert "from /dev/sdb1 (taken out), kept in store\n" in text


def test_an_image_that_is_read_through_dm_verity() -> None:
    assert READY.image is not None
    image = replace(READY.image, integrity="verity", keys=())
    text = views.show_status(replace(READY, image=image), NOW, PLAIN)
    assert "from /dev/sdb1, kept in store, read through dm-verity\n" in text


def test_candidates_that_are_fine_or_none_of_ours_are_not_mentioned_in_the_status() -> None:
    ignored = CandidateStatus(
        device="/dev/sda", generation="1", verdict="ignored", code=Code.FILTER
    )
    gone = CandidateStatus(device="/dev/sdd", generation="1", verdict="refused", present=False)
    status = replace(READY, candidates=(*READY.candidates, ignored, gone))
    assert "CANDIDATE" not in views.show_status(status, NOW, PLAIN)


def test_a_problem_of_the_agent_itself_is_told() -> None:
    left = Problem(Code.MOUNT, "cannot unmount /run/x: in use by process 7 (sh)")
    status = views.show_status(replace(READY, problems=(left,)), NOW, PLAIN)
    assert "problem: E_MOUNT: cannot unmount /run/x: in use by process 7 (sh)" in status


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        ("stopped", "before    it was stopped, last sign 2023-11-14 22:13:20Z"),
        ("crashed", "before    it crashed, last sign 2023-11-14 22:13:20Z; last error: a: no"),
    ],
)
def test_the_run_before_is_told_with_its_last_words_where_they_explain(
    ended: str, line: str
) -> None:
    message = f"it {'was stopped' if ended == 'stopped' else ended}"
    run = PreviousRun(ended=ended, message=message, last_sign=NOW, last_error="a: no")
    assert line in views.show_status(replace(READY, previous_run=run), NOW, PLAIN).splitlines()


def test_candidates_with_what_happened_to_them() -> None:
    candidates = (
        CandidateStatus(
            device="/dev/sdb",
            file="pkgs.img",
            generation="1",
            verdict="verifying",
            progress=0.419,
            size=1 << 30,
        ),
        CandidateStatus(
            device="/dev/sdc1",
            generation="2",
            verdict="refused",
            code=Code.GONE,
            reason="it was pulled",
            hint="plug it in again",
            present=False,
        ),
    )
    assert "\n".join(views.show_candidates(candidates, PLAIN)) == _shown("""
    CANDIDATE          SIZE  VERDICT        WHY
    /dev/sdb:pkgs.img    1G  verifying 42%
    /dev/sdc1             0  refused        taken out; it was pulled [E_GONE]; plug it in again
    """)


def test_what_the_kernel_could_not_grant_is_said() -> None:
    service = replace(READY.services[0], reduced=("swap is not limited",))
    lines = views.show_services((service,), NOW, PLAIN)
    assert lines[1].endswith("128M  reduced: swap is not limited")


def test_names_from_an_image_cannot_paint_the_terminal() -> None:
    service = ServiceStatus(name=ServiceName("a"), state="parked", reason="\x1b[2Jall is well\n")
    lines = views.show_services((service,), NOW, PLAIN)
    assert lines[1].endswith(r"\x1b[2Jall is well\n")


def test_an_explanation() -> None:
    assert views.show_explanation(EXPLANATION, PLAIN) == _shown("""
    webui waits for telemetry, which keeps failing

      1. webui is blocked: it requires telemetry
      2. telemetry is backing off: it ended with exit code 1, 3 times in a row

    last lines of telemetry:
      | cannot reach the broker

    next step: look at the log of telemetry
    """)


def test_an_explanation_with_what_happened_before() -> None:
    change = Change(wall=NOW, subject="service webui", old="ready", new="parked")
    text = views.show_explanation(replace(EXPLANATION, history=(change,)), PLAIN)
    assert f"what happened to webui:\n  {views.show_change(change, PLAIN)}\n" in text


def test_a_change_in_one_line() -> None:
    change = Change(
        wall=NOW, subject="service a", old="ready", new="parked", reason="it ended", code=Code.EXIT
    )
    line = "2023-11-14 22:13:20Z  service a: ready -> parked  it ended [E_EXIT]"
    assert views.show_change(change, PLAIN) == line
    assert "\x1b[31mparked\x1b[0m" in views.show_change(change, Style(colours=True))


def test_the_state_is_painted_by_its_severity() -> None:
    assert views.show_headline(READY, Style(colours=True)) == "\x1b[32mready\x1b[0m"
    assert views.show_headline(DEGRADED, Style(colours=True)).startswith("\x1b[33mdegraded\x1b[0m:")
