"""The OpenAPI document says what the socket does."""

import json
from pathlib import Path
from typing import Any

import pytest

from extsloader.adapters.status_socket import routes
from extsloader.adapters.status_socket.openapi import PARAMETERS, make_document, render
from extsloader.adapters.status_socket.routes import METRICS, ROUTES, Command, Reply, Request
from tests.fakes.status import ACCEPTED, DEGRADED, FakeStatus

DOCUMENT = Path(__file__).parents[3] / "docs/openapi.json"


def test_the_file_is_what_routes_and_model_say() -> None:
    command = "python -m extsloader.adapters.status_socket.openapi > docs/openapi.json"
    assert DOCUMENT.read_text() == render(), f"run: {command}"


def test_every_reference_leads_somewhere() -> None:
    document = make_document()
    for reference in _references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [r for v in value.values() for r in _references(v)]
    return [r for v in value for r in _references(v)] if isinstance(value, list) else []


def test_every_parameter_of_a_route_is_described() -> None:
    assert {p for route in ROUTES for p in route.parameters} <= set(PARAMETERS)


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.path != METRICS], ids=lambda route: route.path
)
async def test_every_answer_has_the_members_of_its_schema(route: routes.Route) -> None:
    status = FakeStatus(now=DEGRADED)
    await status.add("ready", "removing")
    request = Request(
        method=route.method, target=route.path.format(name="webui"), accept="application/json"
    )
    answer = routes.answer(status, request)
    if isinstance(answer, Command):
        answer = routes.tell(ACCEPTED)
    assert isinstance(answer, Reply)
    assert answer.status == (202 if route.method == "POST" else 200)
    document = make_document()
    operation = document["paths"][route.path][route.method.lower()]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    _check(json.loads(answer.body), schema, document["components"]["schemas"])


def _check(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Members and their nesting; types are msgspec's business on both sides."""
    if "$ref" in schema:
        _check(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    elif "anyOf" in schema:
        if value is not None:
            _check(value, schema["anyOf"][0], schemas)
    elif "properties" in schema:
        assert set(value) == set(schema["properties"])
        for name, member in value.items():
            _check(member, schema["properties"][name], schemas)
    elif schema.get("type") == "array":
        for item in value:
            _check(item, schema["items"], schemas)
