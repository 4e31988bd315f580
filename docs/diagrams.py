"""Writes docs/states.md: a service's life as a diagram, from the tables that decide it."""  # noqa: INP001 - a script

from collections.abc import Iterator
from pathlib import Path

from extsloader.core.supervision import FACTS, LEADS_TO, ORDERS, Fact, Order
from extsloader.model.world import ServicePhase

TARGET = Path(__file__).with_name("states.md")

HEAD = """\
# The life of a service

Made from the tables in `extsloader/core/supervision.py` by `make generate`: do not edit.

An arrow is what happens when something is reported.
One that begins with "order" is what the agent does by itself, because the service is wanted
or because it is not.
"""

AFTER_REMOVAL = (
    ServicePhase.IDLE,
    ServicePhase.BACKING_OFF,
    ServicePhase.PARKED,
    ServicePhase.FINISHED,
)
"""Where `removed` leads was decided when the end was reported: it is no row of a table."""


def draw() -> str:
    """The page as text, the same for the same tables."""
    return "\n".join((HEAD, "```mermaid", *_lines(), "```", "", *_table(), ""))


def _lines() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {_name(ServicePhase.IDLE)}"
    for (phase, fact), after in FACTS.items():
        yield f"    {_name(phase)} --> {_name(after)}: {fact}"
    for after in AFTER_REMOVAL:
        yield f"    {_name(ServicePhase.REMOVING)} --> {_name(after)}: {Fact.REMOVED}"
    for (phase, wanted), order in ORDERS.items():
        if order is not None:
            why = "wanted" if wanted else "not wanted"
            yield f"    {_name(phase)} --> {_name(LEADS_TO[order])}: order {order} ({why})"


def _table() -> Iterator[str]:
    yield "| phase | wanted | not wanted |"
    yield "|---|---|---|"
    for phase in ServicePhase:
        yield f"| {phase} | {_say(ORDERS[phase, True])} | {_say(ORDERS[phase, False])} |"


def _say(order: Order | None) -> str:
    return "" if order is None else order.value


def _name(phase: ServicePhase) -> str:
    """Mermaid takes a hyphen for part of an arrow."""
    return phase.replace("-", "_")


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
