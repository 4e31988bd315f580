"""Tables, amounts and colours: plain text that fits a terminal of any width."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from extsloader.model.severity import Severity
from extsloader.model.text import printable

COLOURS = {Severity.GOOD: "32", Severity.WARNING: "33", Severity.ERROR: "31"}  # ECMA-48, SGR
GAP = "  "


@dataclass(frozen=True, slots=True)
class Style:
    """How to paint; the default does not."""

    colours: bool = False

    def paint(self, text: str, severity: Severity) -> str:
        """The text in the colour of good or bad."""
        colour = COLOURS.get(severity)
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colours and colour else text

    def faint(self, text: str) -> str:
        """The text as something of less weight."""
        return f"\x1b[2m{text}\x1b[0m" if self.colours else text


@dataclass(frozen=True, slots=True)
class Cell:
    """One place in a table; the text may come from anywhere."""

    text: str
    severity: Severity | None = None


Row = Sequence[Cell | str]


def lay_table(header: Sequence[str], rows: Sequence[Row], style: Style) -> list[str]:
    """Lines with aligned columns; a header that begins with ">" aligns its column to the right."""
    titles = [Cell(title.lstrip(">")) for title in header]
    cells = [[_clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[i].text) for row in [titles, *cells]) for i in range(len(header))]
    right = [title.startswith(">") for title in header]
    head = _lay_row(titles, widths, right, Style())
    return [style.faint(head), *(_lay_row(row, widths, right, style) for row in cells)]


def format_duration(seconds: float) -> str:
    """Two units at most: "4 s", "3 min", "2 h 5 min", "6 d 1 h"."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def format_age(since: float, now: float) -> str:
    """How long it is so; "-" where it never began."""
    return format_duration(now - since) if since else "-"


def format_size(size: int | None) -> str:
    """Binary units, as the settings take them: "512K", "12.5M"; "-" where it is not known."""
    if size is None:
        return "-"
    value, units = float(size), "BKMGT"
    while value >= 1024 and len(units) > 1:  # noqa: PLR2004 - the step of binary units
        value, units = value / 1024, units[1:]
    number = f"{value:.1f}".removesuffix(".0")
    return number if units[0] == "B" else number + units[0]


def format_time(wall: float) -> str:
    """UTC, as the log has it."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _clean(cell: Cell | str) -> Cell:
    if isinstance(cell, str):
        return Cell(printable(cell))
    return Cell(printable(cell.text), cell.severity)


def _lay_row(
    row: Sequence[Cell], widths: Sequence[int], right: Sequence[bool], style: Style
) -> str:
    parts = []
    for cell, width, to_right in zip(row, widths, right, strict=True):
        padding = " " * (width - len(cell.text))
        text = cell.text if cell.severity is None else style.paint(cell.text, cell.severity)
        parts.append(padding + text if to_right else text + padding)
    return GAP.join(parts).rstrip()
