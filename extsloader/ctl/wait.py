"""`extsloaderctl wait`: sleeps in the daemon's long poll, not in a loop of its own."""

import argparse
import time
from collections.abc import Callable

import msgspec

from extsloader.ctl import views
from extsloader.ctl.client import Client, UnreachableError
from extsloader.ctl.text import Style
from extsloader.model.status import AgentState, StatusSnapshot

POLL = 60.0  # seconds that one long poll lasts
ON_ITS_WAY = frozenset({AgentState.SEARCHING, AgentState.VERIFYING, AgentState.ACTIVATING})
FINAL = frozenset({AgentState.DISABLED, AgentState.STOPPING})
"""States that this run of the agent does not leave, or only by ending."""


def wait(client: Client, options: argparse.Namespace, style: Style) -> bool:
    """Yes when the goal is reached, no when it is too late or out of reach.

    Raises UnreachableError when no daemon came up in time, RefusedError.
    """
    deadline = time.monotonic() + options.timeout
    generation = -1
    while True:
        status = _next_status(client, generation, deadline)
        reached = _is_reached(status.state, options.goal)
        if reached or status.state in FINAL or time.monotonic() >= deadline:
            break
        generation = status.generation
    json = msgspec.json.encode(status).decode()
    print(json if options.json else views.show_headline(status, style))
    return reached


def _is_reached(state: AgentState, goal: str) -> bool:
    return state not in ON_ITS_WAY if goal == "settled" else state == goal


def _next_status(client: Client, generation: int, deadline: float) -> StatusSnapshot:
    """The first status beyond the generation, or the current one when the time is over."""
    left = min(POLL, max(0.0, deadline - time.monotonic()))
    beyond = f"?beyond={generation}&timeout={left:.3f}" if generation >= 0 else ""
    try:
        return client.ask("/v1/status" + beyond, StatusSnapshot, wait=left)
    except UnreachableError as error:
        if not error.passing:
            raise
    # Another daemon's generations count from zero: ask it for its status, whatever it is.
    return _insist(lambda: client.ask("/v1/status", StatusSnapshot), deadline)


def _insist(ask: Callable[[], StatusSnapshot], deadline: float) -> StatusSnapshot:
    """Ask a daemon that is not up yet again and again."""
    from tenacity import (  # noqa: PLC0415 - 25 ms that only those pay who have to wait anyhow
        Retrying,
        retry_if_exception,
        stop_after_delay,
        wait_random_exponential,
    )

    retrying = Retrying(
        retry=retry_if_exception(lambda e: isinstance(e, UnreachableError) and e.passing),
        stop=stop_after_delay(max(0.0, deadline - time.monotonic())),
        wait=wait_random_exponential(multiplier=0.1, max=1.0),
        reraise=True,
    )
    return retrying(ask)
