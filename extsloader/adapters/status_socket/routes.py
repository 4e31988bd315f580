"""From a request to its answer: pure, except that it reads the status port.

What cannot be answered at once (long poll, event stream) is returned as a description that the
connection carries out.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from msgspec import Struct

from extsloader import __version__
from extsloader.model.control import Answer as Verdict
from extsloader.model.control import Result, Verb
from extsloader.model.ids import ServiceName
from extsloader.model.status import (
    AgentState,
    CandidateStatus,
    Change,
    Explanation,
    ServiceStatus,
    StatusSnapshot,
)
from extsloader.model.timeline import Timeline
from extsloader.ports.status import StatusPort

MAX_WAIT = 300.0  # seconds that one long poll may last
DEFAULT_WAIT = 30.0
MAX_FIELDS = 8  # query parameters
SHOWN = 64  # characters of a client's own text that an error repeats
MAX_ID = 1 << 62
JSON = "application/json"
METRICS = "/metrics"


class Request(Struct, frozen=True, kw_only=True):
    """One request, as far as any route looks at it."""

    method: str
    target: str
    accept: str = ""
    last_event_id: str = ""


class Failure(Struct, frozen=True, kw_only=True):
    """The body of every answer that is no success."""

    code: str
    message: str
    hint: str = ""


class Health(Struct, frozen=True, kw_only=True):
    """The loop runs and answers; whether all is well is `state`."""

    state: AgentState
    generation: int
    version: str


class Reply(Struct, frozen=True):
    """A complete answer."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON


class LongPoll(Struct, frozen=True):
    """The next snapshot beyond a generation, or the current one after so many seconds."""

    beyond: int
    timeout: float


class EventStream(Struct, frozen=True):
    """All changes after this one, for as long as the client listens."""

    since: int


class Command(Struct, frozen=True):
    """Something that changes the agent, to be asked in the name of the client's user."""

    verb: Verb
    service: str = ""


Answer = Reply | LongPoll | EventStream | Command


class Question(Struct, frozen=True, kw_only=True):
    """A request that fits a route: `{name}` of its path, and its query."""

    request: Request
    fields: Mapping[str, str]
    name: str = ""


class Route(Struct, frozen=True, kw_only=True):
    """One row of the table; `answers` and `parameters` also make the OpenAPI document."""

    path: str
    summary: str
    answers: Any  # the type of the JSON body
    handler: Callable[[StatusPort, Question], Answer]
    parameters: tuple[str, ...] = ()
    method: str = "GET"


class BadRequestError(Exception):
    """The client's fault, in its words."""


def answer(status: StatusPort, request: Request) -> Answer:
    """Find the route and ask it; every mistake of the client becomes a reply of its own."""
    try:
        parts = urlsplit(request.target)
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        return fail(400, "E_REQUEST", f"cannot read the request target: {error}")
    for route in ROUTES:
        name = _match(route.path, parts.path)
        if name is not None:
            break
    else:
        hint = "the paths are " + ", ".join(route.path for route in ROUTES)
        return fail(404, "E_PATH", f"there is no {_shown(parts.path)}", hint)
    if request.method != route.method:
        message = f"{_shown(request.method)} is not possible here"
        return fail(405, "E_METHOD", message, f"use {route.method}", (("Allow", route.method),))
    try:
        fields = _read_fields(pairs, route.parameters)
        return route.handler(status, Question(request=request, fields=fields, name=name))
    except BadRequestError as error:
        return fail(400, "E_REQUEST", str(error))


def encode(value: object) -> bytes:
    """As JSON, in one line."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a file name that is no UTF-8, as os.fsdecode gives it
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def fail(
    status: int,
    code: str,
    message: str,
    hint: str = "",
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """A reply that says no, and why."""
    return Reply(status, encode(Failure(code=code, message=message, hint=hint)), headers)


def tell(verdict: Verdict) -> Reply:
    """What came of a command."""
    status, code = STATUSES[verdict.result]
    if code:
        return fail(status, code, verdict.message, verdict.hint)
    return Reply(status, encode(verdict))


def resume_point(status: StatusPort, since: int) -> int:
    """Where to go on: ids start anew with the agent, so a point it has not reached is an old one.

    The newest change is always remembered, so nothing from `since` on means that it is ahead.
    """
    return since if status.changes_since(since - 1) else 0


def _match(template: str, path: str) -> str | None:
    """The `{name}` in the path, "" for a template without one, None where it does not fit."""
    before, placeholder, after = template.partition("{name}")
    if not placeholder:
        return "" if path == template else None
    if not (path.startswith(before) and path.endswith(after)):
        return None
    name = path[len(before) : len(path) - len(after)]
    return unquote(name) if name and "/" not in name else None


def _read_fields(pairs: list[tuple[str, str]], known: tuple[str, ...]) -> dict[str, str]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadRequestError("each parameter: expected once, got again")
    unknown = [name for name in fields if name not in known]
    if unknown:
        expected = ", ".join(known) or "no parameter"
        raise BadRequestError(f"expected {expected}, got {_shown(unknown[0])}")
    return fields


def _shown(text: str) -> str:
    return ascii(text[:SHOWN])


def _whole_number(name: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < len(str(MAX_ID)):
        return int(text)
    raise BadRequestError(f"{name}: expected a whole number from 0, got {_shown(text)}")


def _wait_time(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if 0 <= seconds <= MAX_WAIT:
        return seconds
    raise BadRequestError(f"timeout: expected 0 to {MAX_WAIT:.0f} seconds, got {_shown(text)}")


def _status(status: StatusPort, question: Question) -> Answer:
    fields = question.fields
    if "beyond" in fields:
        timeout = _wait_time(fields.get("timeout", str(DEFAULT_WAIT)))
        return LongPoll(_whole_number("beyond", fields["beyond"]), timeout)
    if "timeout" in fields:
        raise BadRequestError("timeout: expected together with beyond")
    return Reply(200, encode(status.snapshot()))


def _services(status: StatusPort, _question: Question) -> Answer:
    return Reply(200, encode(status.snapshot().services))


def _service(status: StatusPort, question: Question) -> Answer:
    for service in status.snapshot().services:
        if service.name == question.name:
            return Reply(200, encode(service))
    return _no_service(question.name)


def _explain(status: StatusPort, question: Question) -> Answer:
    explanation = status.explain(ServiceName(question.name))
    return Reply(200, encode(explanation)) if explanation else _no_service(question.name)


def _no_service(name: str) -> Reply:
    hint = "extsloaderctl services (GET /v1/services) lists what there is"
    return fail(404, "E_SERVICE", f"there is no service {_shown(name)}", hint)


def _candidates(status: StatusPort, _question: Question) -> Answer:
    return Reply(200, encode(status.snapshot().candidates))


def _events(status: StatusPort, question: Question) -> Answer:
    # Last-Event-ID is what a browser's EventSource sends when it reconnects to the same URL.
    text = question.request.last_event_id or question.fields.get("since", "0")
    since = resume_point(status, _whole_number("since", text))
    if JSON in question.request.accept:
        return Reply(200, encode(status.changes_since(since)))
    return EventStream(since)


def _timeline(status: StatusPort, _question: Question) -> Answer:
    return Reply(200, encode(status.timeline()))


def _health(status: StatusPort, _question: Question) -> Answer:
    now = status.snapshot()
    health = Health(state=now.state, generation=now.generation, version=__version__)
    return Reply(200, encode(health))


def _metrics(status: StatusPort, _question: Question) -> Answer:
    from extsloader.adapters.status_socket import metrics  # noqa: PLC0415 - few ask, all would load

    body = metrics.render(status.snapshot())
    return Reply(200, body, content_type=metrics.CONTENT_TYPE)


def _command(verb: Verb) -> Callable[[StatusPort, Question], Answer]:
    return lambda _status, question: Command(verb, question.name)


STATUSES = {
    Result.ACCEPTED: (202, ""),
    Result.ALREADY: (200, ""),
    Result.REFUSED: (409, "E_REFUSED"),
    Result.UNKNOWN: (404, "E_SERVICE"),
    Result.DENIED: (403, "E_DENIED"),
}
"""Status and code of each result."""

COMMANDS = {
    Verb.START: "Let a stopped service run again; try one now that gave up or waits",
    Verb.STOP: "Stop a service until it is started, or the device boots",
    Verb.RESTART: "Stop a service and start it again; those that need it run on",
    Verb.PAUSE: "Stop a service until it is resumed, also across reboots",
    Verb.RESUME: "Let a paused service run again",
    Verb.RESCAN: "Look at all devices and directories anew",
    Verb.RELOAD: "Read the configuration anew; a bad one changes nothing",
}
ABOUT_ALL = frozenset({Verb.RESCAN, Verb.RELOAD})

ROUTES = (
    Route(
        path="/v1/status",
        summary="The one truth; with `beyond`, as soon as its generation is higher",
        answers=StatusSnapshot,
        handler=_status,
        parameters=("beyond", "timeout"),
    ),
    Route(
        path="/v1/services",
        summary="The services of the active image",
        answers=tuple[ServiceStatus, ...],
        handler=_services,
    ),
    Route(
        path="/v1/services/{name}",
        summary="One service",
        answers=ServiceStatus,
        handler=_service,
    ),
    Route(
        path="/v1/services/{name}/explain",
        summary="Why a service is as it is, from the symptom to the root cause",
        answers=Explanation,
        handler=_explain,
    ),
    Route(
        path="/v1/candidates",
        summary="Where an image was looked for, and the verdicts",
        answers=tuple[CandidateStatus, ...],
        handler=_candidates,
    ),
    Route(
        path="/v1/events",
        summary="Changes of state, remembered ones first; a stream unless JSON is asked for",
        answers=tuple[Change, ...],
        handler=_events,
        parameters=("since",),
    ),
    Route(
        path="/v1/timeline",
        summary="What happened from the agent's start until the device was ready, or until now",
        answers=Timeline,
        handler=_timeline,
    ),
    Route(
        path="/v1/healthz",
        summary="Whether the agent's loop runs and answers",
        answers=Health,
        handler=_health,
    ),
    Route(
        path=METRICS,
        summary="The same in numbers, as OpenMetrics text",
        answers=str,
        handler=_metrics,
    ),
    *(
        Route(
            path=f"/v1/{verb}" if verb in ABOUT_ALL else f"/v1/services/{{name}}/{verb}",
            summary=summary,
            answers=Verdict,
            handler=_command(verb),
            method="POST",
        )
        for verb, summary in COMMANDS.items()
    ),
)
