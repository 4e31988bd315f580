"""`top`: what each service uses now; processor time between two looks, by the kernel's counters."""

import argparse
import json
import time
from collections.abc import Sequence

from extsloader.ctl.client import Client
from extsloader.ctl.text import Style, format_size, lay_table
from extsloader.model.status import ServiceStatus, Usage

Pair = tuple[ServiceStatus, float | None]
"""A service, and its share of one processor in percent; None where it cannot be told."""


def print_usage(client: Client, options: argparse.Namespace, style: Style) -> bool:
    """Two looks, `--interval` seconds apart."""
    before, began = client.ask("/v1/services", tuple[ServiceStatus, ...]), time.monotonic()
    time.sleep(options.interval)
    after, seconds = client.ask("/v1/services", tuple[ServiceStatus, ...]), time.monotonic() - began
    pairs = compare(before, after, seconds)
    print(_encode(pairs) if options.json else "\n".join(show_usage(pairs, style)))
    return True


def compare(
    before: Sequence[ServiceStatus], after: Sequence[ServiceStatus], seconds: float
) -> list[Pair]:
    """The busiest first, then the largest."""
    old = {service.name: service for service in before}
    pairs = [(service, _share(old.get(service.name), service, seconds)) for service in after]
    return sorted(pairs, key=lambda pair: (-(pair[1] or 0.0), -(_usage(pair[0]).memory or 0)))


def show_usage(pairs: Sequence[Pair], style: Style) -> list[str]:
    """A table."""
    header = ("SERVICE", "STATE", ">CPU %", ">MEMORY", ">LIMIT", ">PIDS", ">LIMIT", ">OOM KILLS")
    return lay_table(header, [_row(*pair) for pair in pairs], style)


def _row(service: ServiceStatus, share: float | None) -> tuple[str, ...]:
    usage, limits = _usage(service), service.limits
    return (
        service.name,
        service.state,
        "-" if share is None else f"{share:.1f}",
        format_size(usage.memory),
        format_size(limits.memory if limits else None),
        _count(usage.pids),
        _count(limits.pids if limits else None),
        _count(usage.oom_kills),
    )


def _share(old: ServiceStatus | None, new: ServiceStatus, seconds: float) -> float | None:
    """Of two runs of a service nothing can be compared: each has a control group of its own."""
    if old is None or old.pid != new.pid:
        return None
    then, now = _usage(old).cpu_seconds, _usage(new).cpu_seconds
    return None if then is None or now is None else max(0.0, now - then) / seconds * 100


def _usage(service: ServiceStatus) -> Usage:
    return service.usage or Usage()


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _encode(pairs: Sequence[Pair]) -> str:
    return json.dumps([_members(*pair) for pair in pairs])


def _members(service: ServiceStatus, share: float | None) -> dict[str, object]:
    usage, limits = _usage(service), service.limits
    return {
        "name": service.name,
        "state": service.state,
        "cpu_percent": share,
        "memory": usage.memory,
        "memory_limit": limits.memory if limits else None,
        "pids": usage.pids,
        "pids_limit": limits.pids if limits else None,
        "oom_kills": usage.oom_kills,
    }
