"""`timeline`: what a start waited for, as a table with bars, or drawn into a file."""

import argparse
import html
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from extsloader.ctl.client import Client
from extsloader.ctl.text import Cell, Style, lay_table
from extsloader.model.severity import Severity, severity
from extsloader.model.text import printable
from extsloader.model.timeline import Pace, Phase, Row, Timeline

BAR = 40  # characters
LETTERS = {Pace.BUSY: "=", Pace.WAITS: ".", Pace.RESTS: "-"}
LATE = 0.5
"""Of the whole: where the critical path begins later, a stick was put in late, say, the bars begin
with it."""

WIDTH, LEFT, RIGHT, HEIGHT, TOP = 1200, 280, 180, 24, 110  # pixels of the drawing
TICKS = 8
LEGEND = "blue: busy; dashed: waits; green: at rest; red: not as wanted"
ROLE = 'role="graphics-document" aria-labelledby="title" aria-describedby="description"'
LABEL = 36  # characters
STYLE = """text{font:13px sans-serif;fill:#222}.faint{fill:#666}.critical{font-weight:bold}
.busy{fill:#1f6feb}.waits{fill:#fff;stroke:#888;stroke-dasharray:3 2}.rests{fill:#9ccfa8}
.bad{fill:#d1495b}.tick{stroke:#ddd}"""


def show_timeline(client: Client, options: argparse.Namespace, style: Style) -> bool:
    """Printed, or drawn into the file of `-o`; no when that cannot be written."""
    body = client.get("/v1/timeline")
    timeline = client.decode(body, Timeline)
    if options.output:
        return _write(options.output, draw(timeline))
    print(body.decode() if options.json else "\n".join(show(timeline, style)))
    return True


def show(timeline: Timeline, style: Style) -> list[str]:
    """Lines of text."""
    rows = [_lay(timeline, row) for row in _shown(timeline)]
    header = (">BEGIN", ">DONE", ">TOOK", "", "WHAT", "STATE", "= BUSY, . WAITS, - RESTS")
    return [*_summarize(timeline), "", *lay_table(header, rows, style)]


def draw(timeline: Timeline) -> str:
    """The same as SVG 2: it needs nothing else, and each bar says what it is when pointed at."""
    title, *lines = map(_escape, _summarize(timeline))
    rows = _shown(timeline)
    height = TOP + HEIGHT * (len(rows) + 1)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {ROLE}>',
            f'<title id="title">{title}</title>',
            f'<desc id="description">{" ".join(lines)}</desc>',
            f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="10" y="24" class="critical">{title}</text>',
            *(f'<text x="10" y="44">{line}</text>' for line in lines),
            f'<text x="10" y="64" class="faint">{LEGEND}</text>',
            *_draw_ticks(timeline, height),
            *(line for i, row in enumerate(rows) for line in _draw_row(timeline, row, i)),
            "</svg>\n",
        )
    )


def _write(path: str, drawing: str) -> bool:
    if path.endswith(".html"):
        head = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>extsloader</title>\n'
        drawing = f"{head}<body>\n{drawing}</body></html>\n"
    try:
        Path(path).write_text(drawing, encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        print(f"extsloaderctl: cannot write {printable(path)}: {reason}", file=sys.stderr)
        return False
    return True


def _shown(timeline: Timeline) -> list[Row]:
    """Nobody waited for what the filters leave out; a device has dozens of partitions."""
    return [row for row in timeline.rows if not row.phases[-1].name.startswith("ignored")]


def _summarize(timeline: Timeline) -> Iterator[str]:
    started = f"agent started {timeline.after_boot:.1f} s after boot"
    ready = "not ready yet" if timeline.ready is None else f"ready after {_time(timeline.ready)}"
    cut = f"; only the first {_time(timeline.until)} are known" if timeline.cut else ""
    yield f"{ready}{cut}; {started}"
    yield printable(f"critical path (*): {' -> '.join(timeline.critical_path) or '-'}")


def _lay(timeline: Timeline, row: Row) -> tuple[Cell | str, ...]:
    state = row.phases[-1].name
    return (
        _time(row.phases[0].begin),
        _time(row.done),
        _time(row.took),
        "*" if row.subject in timeline.critical_path else "",
        row.subject,
        Cell(state, severity(state)),
        _bar(timeline, row.phases),
    )


def _bar(timeline: Timeline, phases: Iterable[Phase]) -> str:
    letters = [" "] * BAR
    for phase in phases:
        first, last = (round(share * (BAR - 1)) for share in _shares(timeline, phase))
        for place in range(first, last + 1):
            letters[place] = LETTERS[phase.pace]
    return "".join(letters)


def _draw_ticks(timeline: Timeline, height: int) -> Iterator[str]:
    origin = _origin(timeline)
    for i in range(TICKS + 1):
        x = LEFT + (WIDTH - LEFT - RIGHT) * i / TICKS
        at = origin + (timeline.until - origin) * i / TICKS
        yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 10}" y2="{height - 10}"/>'
        place = f'x="{x:.1f}" y="{TOP - 16}" text-anchor="middle"'
        yield f'<text class="faint" {place}>{_time(at)}</text>'


def _draw_row(timeline: Timeline, row: Row, number: int) -> Iterator[str]:
    y = TOP + HEIGHT * number
    state, critical = row.phases[-1].name, row.subject in timeline.critical_path
    words = _escape(f"{row.subject}: {state}, took {_time(row.took)}")
    label, kind = _escape(_shorten(row.subject)), "critical" if critical else "other"
    mark = "* " if critical else ""
    yield f'<g role="graphics-object" aria-label="{words}"><title>{words}</title>'
    place = f'x="{LEFT - 10}" y="{y + 15}" text-anchor="end"'
    yield f'<text class="{kind}" {place}>{mark}{label}</text>'
    yield from (_draw_phase(timeline, phase, y) for phase in row.phases)
    end = _escape(f"{_time(row.took)}, {state}")
    yield f'<text class="faint" x="{WIDTH - RIGHT + 10}" y="{y + 15}">{end}</text></g>'


def _draw_phase(timeline: Timeline, phase: Phase, y: int) -> str:
    first, last = (LEFT + (WIDTH - LEFT - RIGHT) * share for share in _shares(timeline, phase))
    bad = severity(phase.name) >= Severity.WARNING
    end = timeline.until if phase.end is None else phase.end
    words = _escape(f"{phase.name}: {_time(phase.begin)} to {_time(end)}")
    size = f'x="{first:.1f}" y="{y + 3}" width="{max(last - first, 1.0):.1f}" height="{HEIGHT - 8}"'
    return f'<rect class="{"bad" if bad else phase.pace}" {size}><title>{words}</title></rect>'


def _shares(timeline: Timeline, phase: Phase) -> tuple[float, float]:
    """Where it begins and ends, of the whole width."""
    origin, end = _origin(timeline), timeline.until if phase.end is None else phase.end
    whole = max(timeline.until - origin, 1e-6)
    first, last = ((at - origin) / whole for at in (phase.begin, end))
    return min(max(first, 0.0), 1.0), min(max(last, 0.0), 1.0)


def _origin(timeline: Timeline) -> float:
    critical = (row for row in timeline.rows if row.subject in timeline.critical_path)
    first = min((row.phases[0].begin for row in critical), default=0.0)
    return first if first > timeline.until * LATE else 0.0


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f} s"


def _shorten(text: str) -> str:
    return text if len(text) <= LABEL else f"{text[: LABEL - 3]}..."


def _escape(text: str) -> str:
    """For text and attributes; XML 1.0 has no control characters and no surrogates at all."""
    return html.escape(printable(text))
