"""The verbs that ask the daemon. Each prints and returns whether the answer is yes."""

import argparse
import os
import sys
import time
from collections.abc import Iterator

import msgspec

from extsloader.ctl import views
from extsloader.ctl.arguments import COMMANDS
from extsloader.ctl.client import Client, RefusedError, UnreachableError
from extsloader.ctl.exits import NO, UNREACHABLE, YES
from extsloader.ctl.text import Style
from extsloader.ctl.wait import wait
from extsloader.model.status import (
    AgentState,
    CandidateStatus,
    Change,
    Explanation,
    ServiceStatus,
    StatusSnapshot,
)
from extsloader.model.text import printable

DECISION_TIME = 40.0  # seconds: a configuration is checked in less than 30
EVENT_STREAM = (("Accept", "text/event-stream"),)


def ask_daemon(options: argparse.Namespace, socket: str, *, colours: bool) -> int:
    """Run one verb; the exit code."""
    verbs = {
        "status": print_status,
        "services": print_services,
        "explain": explain_service,
        "candidates": print_candidates,
        "events": print_events,
        "timeline": _show_timeline,
        "top": _print_usage,
        "wait": wait,
        **dict.fromkeys(COMMANDS, give_order),
    }
    try:
        return YES if verbs[options.verb](Client(socket), options, Style(colours=colours)) else NO
    except RefusedError as error:
        return _complain(f"{error} [{error.code}]", error.hint, NO)
    except UnreachableError as error:
        return _complain(str(error), error.hint, UNREACHABLE)


def print_status(client: Client, options: argparse.Namespace, style: Style) -> bool:
    """Yes when the device is ready."""
    body = client.get("/v1/status")
    status = client.decode(body, StatusSnapshot)
    print(body.decode() if options.json else views.show_status(status, _wall_clock(), style))
    return status.state is AgentState.READY


def print_services(client: Client, options: argparse.Namespace, style: Style) -> bool:
    """All services of the active image."""
    body = client.get("/v1/services")
    services = client.decode(body, tuple[ServiceStatus, ...])
    if options.json:
        print(body.decode())
    elif options.names:
        print("".join(f"{service.name}\n" for service in services), end="")
    elif services:
        print("\n".join(views.show_services(services, _wall_clock(), style)))
    else:
        print("there are no services: no image is active")
    return True


def explain_service(client: Client, options: argparse.Namespace, style: Style) -> bool:
    """Why one service is as it is."""
    body = client.get(f"/v1/services/{_encode(options.name)}/explain")
    explanation = client.decode(body, Explanation)
    print(body.decode() if options.json else views.show_explanation(explanation, style))
    return True


def print_candidates(client: Client, options: argparse.Namespace, style: Style) -> bool:
    """All places where an image was looked for."""
    body = client.get("/v1/candidates")
    candidates = client.decode(body, tuple[CandidateStatus, ...])
    if options.json:
        print(body.decode())
    elif candidates:
        print("\n".join(views.show_candidates(candidates, style)))
    else:
        print("there are no candidates: no medium that could hold an image was seen")
    return True


def print_events(client: Client, options: argparse.Namespace, style: Style) -> bool:
    """Changes of state, one a line, as JSON or for people; with --follow until the daemon ends."""
    target = f"/v1/events?since={options.since}"
    if not options.follow:
        for change in client.ask(target, tuple[Change, ...]):
            _print_change(change, options, style)
        return True
    for event in _events(client.stream(target, EVENT_STREAM, wait=None)):
        _print_change(client.decode(event, Change), options, style)
        sys.stdout.flush()
    print("extsloaderctl: the daemon ended the stream", file=sys.stderr)
    return False


def _show_timeline(client: Client, options: argparse.Namespace, style: Style) -> bool:
    from extsloader.ctl.timeline import show_timeline  # noqa: PLC0415 - the same

    return show_timeline(client, options, style)


def _print_usage(client: Client, options: argparse.Namespace, style: Style) -> bool:
    from extsloader.ctl.top import print_usage  # noqa: PLC0415 - `wait` at boot needs none of it

    return print_usage(client, options, style)


def give_order(client: Client, options: argparse.Namespace, _style: Style) -> bool:
    """Change something, and say what came of it."""
    name = getattr(options, "name", "")
    place = f"/v1/services/{_encode(name)}" if name else "/v1"
    answer = client.order(f"{place}/{options.verb}", wait=DECISION_TIME)
    if options.json:
        print(msgspec.json.encode(answer).decode())
    else:
        print(printable(answer.message))
        if answer.hint:
            print(f"hint: {printable(answer.hint)}", file=sys.stderr)
    return True


def _encode(name: str) -> str:
    """Whatever was typed: every byte may be percent-encoded (RFC 3986, 2.1)."""
    return "".join(f"%{byte:02X}" for byte in os.fsencode(name))


def _wall_clock() -> float:
    """Seconds since 1970: the daemon's times are of the same clock."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def _complain(message: str, hint: str, code: int) -> int:
    print(f"extsloaderctl: {printable(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {printable(hint)}", file=sys.stderr)
    return code


def _print_change(change: Change, options: argparse.Namespace, style: Style) -> None:
    if options.json:
        print(msgspec.json.encode(change).decode())
    else:
        print(views.show_change(change, style))


def _events(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The data of each server-sent event (WHATWG HTML, 9.2.6); ours have one data line each."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: "))
