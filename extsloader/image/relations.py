"""What is wrong between the services of a manifest: names of nobody, and what cannot be."""

from collections.abc import Iterator
from typing import Any

from extsloader.image.strictjson import shown
from extsloader.model.reasons import Code

MAX_SERVICES = 64

Finding = tuple[Code, str]
"""One problem: its code and what is wrong, naming the member."""


def is_named(service: Any) -> bool:
    """Whether it has a name that can be shown as it is."""
    name = service.get("name") if isinstance(service, dict) else None
    return isinstance(name, str) and name.isascii() and name.replace("-", "").isalnum()


def find_relation_problems(found: dict[str, Any]) -> Iterator[Finding]:
    """Names used twice or of nobody; on the raw data, so that no other problem hides them."""
    listed = [service for service in _short_list(found, "services") if is_named(service)]
    names = [service["name"] for service in listed]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Code.SCHEMA, f"service {name} is there {names.count(name)} times"
    by_name = {service["name"]: service for service in listed}
    for service in listed:
        for kind in ("requires", "wants", "after", "conflicts"):
            for other in _strings(service, kind):
                if problem := _relation_problem(service, kind, by_name.get(other)):
                    yield Code.DAG, f"service {service['name']}: {kind} {shown(other)}, {problem}"


def _relation_problem(service: Any, kind: str, other: Any) -> str:
    """Why one service cannot stand in this relation to the other; "" where it can."""
    if other is None:
        return "not there"
    if kind == "conflicts":
        both = other is service or other["name"] in _strings(service, "requires")
        return "which it cannot do without" if both else ""
    ours, theirs = service.get("stage", 0), other.get("stage", 0)
    if type(ours) is type(theirs) is int and theirs > ours:
        return f"of the later stage {theirs}"
    return ""


def _strings(service: Any, kind: str) -> list[str]:
    return [name for name in _short_list(service, kind) if isinstance(name, str)]


def _short_list(found: dict[str, Any], member: str) -> list[Any]:
    """The member's items; none where the schema refuses it for its length."""
    value = found.get(member)
    return value if isinstance(value, list) and len(value) <= MAX_SERVICES else []
