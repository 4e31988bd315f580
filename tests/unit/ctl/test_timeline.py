"""What `extsloaderctl timeline` shows and draws."""

import re
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from extsloader.ctl.text import Style
from extsloader.ctl.timeline import draw, show
from extsloader.model.timeline import Pace, Phase, Row, Timeline
from tests.fakes.status import TIMELINE

SVG = "{http://www.w3.org/2000/svg}"


def phase(name: str, pace: Pace, begin: float, end: float | None = None) -> Phase:
    return Phase(name=name, pace=pace, begin=begin, end=end)


def late(subject: str = "service a", name: str = "starting") -> Timeline:
    """An hour's search, and a start of a second."""
    row = Row(subject=subject, phases=(phase(name, Pace.BUSY, 3600.0),))
    agent = Row(subject="agent", phases=(phase("searching", Pace.BUSY, 0.0),))
    return Timeline(
        started=1.0, after_boot=2.0, until=3601.0, critical_path=(subject,), rows=(agent, row)
    )


def parse(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)  # noqa: S314 - our own


def parts(root: ET.Element) -> set[str]:
    return {element.tag.removeprefix(SVG) for element in root.iter()}


def test_the_table() -> None:
    lines = show(TIMELINE, Style())
    assert lines[:3] == [
        "ready after 2.000 s; agent started 8.0 s after boot",
        "critical path (*): image 0123456789ab -> service collector",
        "",
    ]
    assert [re.split(r"  +", line.strip()) for line in lines[4:]] == [
        [
            "0.500 s",
            "1.000 s",
            "0.500 s",
            "*",
            "image 0123456789ab",
            "mounted",
            "=" * 10 + "-" * 20,
        ],
        [
            "1.000 s",
            "2.000 s",
            "0.750 s",
            "*",
            "service collector",
            "ready",
            "====.....==========-",
        ],
    ]


def test_after_a_long_search_the_bars_begin_with_what_counts() -> None:
    *_, bar = show(late(), Style())[-1].split()
    assert bar == "=" * 40
    assert show(late(), Style())[0].startswith("not ready yet; ")


def test_a_cut_one_says_so_and_an_empty_one_is_no_fault() -> None:
    cut = Timeline(started=1.0, after_boot=2.0, until=3.0, cut=True)
    assert "only the first 3.000 s are known" in show(cut, Style())[0]
    empty = Timeline(started=1.0, after_boot=2.0, until=0.0)
    assert show(empty, Style())[1] == "critical path (*): -"
    parse(draw(empty))


def test_the_drawing_has_words_for_those_who_cannot_see_it() -> None:
    root = parse(draw(TIMELINE))
    words = [element.text for element in root.iter(f"{SVG}title")]
    assert "service collector: ready, took 0.750 s" in words
    assert "created: 1.250 s to 1.500 s" in words
    assert root[0].text == "ready after 2.000 s; agent started 8.0 s after boot"


@given(st.text(st.characters(), max_size=60))  # surrogates and control characters, too
def test_no_name_can_break_the_drawing(name: str) -> None:
    drawing = draw(late(f"service {name}</title><script>'\"&", name))
    drawing.encode("utf-8")
    root = parse(drawing)
    assert parts(root) == parts(parse(draw(TIMELINE)))
