"""The log on standard error: one line for each change of state, and for what goes wrong.

Whoever reads the other end may have stopped reading, and the loop must not stop with it. So a
line is written without waiting; lines that find no room are dropped, and the next line that is
written is preceded by one that says how many. A line is at most 4096 bytes: to a pipe it goes as
a whole or not at all (pipe(7), PIPE_BUF).
"""

import json
import logging
import os
import socket
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from extsloader.model.pillar import AGENT
from extsloader.model.severity import Severity, severity
from extsloader.model.status import Change
from extsloader.model.text import printable

MAX_LINE = 4096  # bytes, line end included
PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}  # sd-daemon(3)
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning"}
HEADER = ("level", "time", "event", "id", "subject", "old", "new", "reason", "code")
LOGRUS = {"critical": "fatal"}
"""What newlogd calls a level otherwise; it sends no line with an unknown one on."""

VERBOSITY = {
    "all": 0,
    "trace": 0,
    "debug": 10,
    "info": 20,
    "warning": 30,
    "warn": 30,
    "error": 40,
    "none": 60,
}
"""What logrus names, in numbers of `logging`; the others ("fatal", "panic") are critical."""


class LineWriter:
    """Writes lines to a descriptor without ever waiting."""

    def __init__(self, descriptor: int) -> None:
        self.lost = 0
        self._socket: socket.socket | None = None
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            self._socket = socket.socket(fileno=os.dup(descriptor))
        else:
            self._descriptor = _reopen(descriptor)

    def msg(self, line: str) -> None:
        """Write the line, or count it as lost."""
        if self.lost and self._write(f"{self.lost} lines of the log were lost here"):
            self.lost = 0
        if not self._write(line):
            self.lost += 1

    # structlog calls the method that has the name of the level.
    debug = info = warning = error = critical = msg

    def close(self) -> None:
        """Close our own copy of the descriptor."""
        if self._socket:
            self._socket.close()
        else:
            os.close(self._descriptor)

    def _write(self, line: str) -> bool:
        data = line.encode("utf-8", "backslashreplace")[: MAX_LINE - 1] + b"\n"
        try:
            if self._socket:
                return self._socket.send(data, socket.MSG_DONTWAIT) == len(data)
            return os.write(self._descriptor, data) == len(data)
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Journal:
    """`log` is for everything that is no change of state."""

    log: structlog.typing.FilteringBoundLogger
    writer: LineWriter
    threshold: "Threshold"

    def set_level(self, name: str) -> None:
        """Log from this level on, as EVE names them."""
        self.threshold.level = VERBOSITY.get(name, logging.CRITICAL)

    def write_change(self, change: Change) -> None:
        """One line; its level follows from how bad the new state is."""
        fields = {"subject": change.subject, "old": change.old, "new": change.new}
        if change.reason:
            fields["reason"] = change.reason
        if change.code:
            fields["code"] = change.code
        write = getattr(self.log, LEVELS.get(severity(change.new), "info"))
        write("change", time=_format_time(change.wall), id=change.id, **fields)


def open_journal(
    log_format: str, descriptor: int = 2, environ: Mapping[str, str] = os.environ
) -> Journal:
    """`log_format` is "text" or "json". Text carries priorities when the journal reads it."""
    writer = LineWriter(descriptor)
    threshold = Threshold()
    render: structlog.typing.Processor = _render_json
    if log_format == "text":
        render = _TextRenderer(for_journal=_is_journal(descriptor, environ))
    log = structlog.wrap_logger(
        writer,
        processors=[
            threshold,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", key="now"),
            _keep_own_time,
            _name_error,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
    )
    return Journal(log, writer, threshold)


class Threshold:
    """The first step: drops what is not to be logged. The level may change at any time."""

    def __init__(self) -> None:
        self.level = logging.INFO

    def __call__(
        self, _logger: object, method: str, fields: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """Called by structlog. Raises DropEvent."""
        if VERBOSITY.get(method, logging.CRITICAL) < self.level:
            raise structlog.DropEvent
        return fields


class LibraryLog(logging.Handler):
    """Takes what libraries (asyncio) log with `logging` into the same journal.

    To be added to the root logger.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._log = journal.log

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        text = record.getMessage().partition("\n")[0]
        error = record.exc_info[1] if record.exc_info else None
        self._log.log(record.levelno, text, logger=record.name, exc_info=error)


@dataclass(frozen=True, slots=True)
class _TextRenderer:
    """The last step: from fields to one line."""

    for_journal: bool

    def __call__(self, _logger: object, _method: str, fields: Mapping[str, Any]) -> str:
        line = printable(_describe(fields))
        if self.for_journal:  # it has the time already
            return f"<{PRIORITIES[fields['level']]}>{line}"
        return f"{fields['time']} {fields['level']:<7} {line}"


def _describe(fields: Mapping[str, Any]) -> str:
    text = str(fields["event"])
    if text == "change":
        text = f"{fields['subject']}: {fields['old']} -> {fields['new']}"
    text += f": {fields['reason']}" if "reason" in fields else ""
    text += f" [{fields['code']}]" if "code" in fields else ""
    rest = (f"{key}={value}" for key, value in fields.items() if key not in HEADER and value)
    return " ".join((text, *rest))


def _keep_own_time(
    _logger: object, _method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A change has its own time; everything else happens now."""
    now = fields.pop("now")
    fields.setdefault("time", now)
    return fields


def _name_error(
    _logger: object, _method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A traceback becomes one word on its error and one on its place."""
    error = fields.pop("exc_info", None)
    if error is True:  # `log.exception`: the one that is being handled
        error = sys.exception()
    if error is not None:
        fields["error"] = f"{type(error).__name__}: {error}"
        fields["place"] = _innermost(error)
    return fields


def _render_json(_logger: object, _method: str, fields: Mapping[str, Any]) -> str:
    """One object that is a whole one within a line: its longest text is cut until it fits.

    With the names that EVE's newlogd knows. It reads `pid` as a number, and cuts at 8192 bytes.
    """
    fields = {**fields, "msg": fields["event"], "pid": os.getpid(), "source": AGENT}
    fields["level"] = LOGRUS.get(fields["level"], fields["level"])
    del fields["event"]
    while len(line := json.dumps(fields, default=str, sort_keys=True)) >= MAX_LINE:
        longest = max(fields, key=lambda name: len(str(fields[name])))
        text = str(fields[longest])
        fields = {**fields, longest: text[: len(text) // 2]}
    return line


def _is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """JOURNAL_STREAM names device and inode of the stream (systemd.exec(5))."""
    info = os.fstat(descriptor)
    return environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


def _reopen(descriptor: int) -> int:
    """A copy that does not block, while the original goes on as it is.

    O_NONBLOCK belongs to the open file description, which the shell that started us shares; so
    the file is opened anew. Where that is not allowed, the copy shares and may block.
    """
    with suppress(OSError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    return os.dup(descriptor)


def _format_time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
