"""Writes docs/states.md: the lives of images and services, from the tables that decide them."""  # noqa: INP001 - a script

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from extsloader.core import lifecycle, supervision
from extsloader.model.world import ImagePhase, ServicePhase

TARGET = Path(__file__).with_name("states.md")

HEAD = """\
# States

Made from the tables in `extsloader/core/lifecycle.py` and `extsloader/core/supervision.py` by
`make generate`: do not edit.

An arrow is what happens when something is reported.
One that begins with "order" is what the agent does by itself, because the image or the service is
wanted or because it is not.
"""

AFTER_REMOVAL = (
    ServicePhase.IDLE,
    ServicePhase.BACKING_OFF,
    ServicePhase.PARKED,
    ServicePhase.FINISHED,
)
"""Where `removed` leads was decided when the end was reported: it is no row of a table."""

Arrow = tuple[StrEnum, StrEnum, str]
Orders = Mapping[Any, StrEnum | None]  # by (phase, wanted), of either kind


def draw() -> str:
    """The page as text, the same for the same tables."""
    images: list[Arrow] = [(a, b, str(fact)) for (a, fact), b in lifecycle.FACTS.items()]
    images += _ordered(lifecycle.ORDERS, lifecycle.LEADS_TO)
    services: list[Arrow] = [(a, b, str(fact)) for (a, fact), b in supervision.FACTS.items()]
    services += [(ServicePhase.REMOVING, b, supervision.Fact.REMOVED) for b in AFTER_REMOVAL]
    services += _ordered(supervision.ORDERS, supervision.LEADS_TO)
    return "\n".join(
        (
            HEAD,
            *_section("The life of an image", ImagePhase.STORED, images, lifecycle.ORDERS),
            *_section("The life of a service", ServicePhase.IDLE, services, supervision.ORDERS),
        )
    )


def _ordered(orders: Orders, leads_to: Mapping[Any, StrEnum]) -> list[Arrow]:
    return [
        (phase, leads_to[order], f"order {order} ({'wanted' if wanted else 'not wanted'})")
        for (phase, wanted), order in orders.items()
        if order is not None
    ]


def _section(title: str, first: StrEnum, arrows: list[Arrow], orders: Orders) -> Iterator[str]:
    yield from (f"## {title}", "", "```mermaid", "stateDiagram-v2", f"    [*] --> {_name(first)}")
    yield from (f"    {_name(a)} --> {_name(b)}: {why}" for a, b, why in arrows)
    yield from ("```", "", "| phase | wanted | not wanted |", "|---|---|---|")
    for phase in type(first):
        yield f"| {phase} | {orders[phase, True] or ''} | {orders[phase, False] or ''} |"
    yield ""


def _name(phase: StrEnum) -> str:
    """Mermaid takes a hyphen for part of an arrow."""
    return phase.replace("-", "_")


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
