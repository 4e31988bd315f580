"""The OpenAPI document of the status socket, made from the routes and the model.

`python -m extsloader.adapters.status_socket.openapi > docs/openapi.json` writes it anew; a test
holds the file equal to what this makes.
"""

import json
import sys
from typing import Any

import msgspec

from extsloader import __version__
from extsloader.adapters.status_socket.metrics import CONTENT_TYPE
from extsloader.adapters.status_socket.routes import (
    DEFAULT_WAIT,
    JSON,
    MAX_WAIT,
    METRICS,
    ROUTES,
    Failure,
    Route,
)

REFERENCE = "#/components/schemas/{name}"
NUMBER = {"type": "integer", "minimum": 0}
PARAMETERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "name": ("path", "a service of the active image", {"type": "string"}),
    "beyond": ("query", "wait for a status whose generation is higher", NUMBER),
    "timeout": (
        "query",
        "seconds to wait before the current status is sent; only together with beyond",
        {"type": "number", "minimum": 0, "maximum": MAX_WAIT, "default": DEFAULT_WAIT},
    ),
    "since": ("query", "only changes with a higher id", NUMBER),
    "Last-Event-ID": ("header", "the same, and stronger: a reconnecting EventSource", NUMBER),
}
FAILURES = {
    "400": "the request cannot be read, or a parameter is wrong",
    "403": "only root may change anything",
    "404": "there is no such path or service",
    "405": "another method is needed here",
    "408": "the request was not complete in time",
    "409": "it cannot be done as things are",
    "413": "no body is expected",
    "431": "the head of the request is too long",
    "503": "too many clients are connected, or nothing was decided in time",
}


def make_document() -> dict[str, Any]:
    """The whole document, as plain data."""
    kinds = [*(route.answers for route in ROUTES), Failure]
    answers, schemas = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    failure = {"content": {JSON: {"schema": answers[-1]}}}
    shared = {code: {"description": text, **failure} for code, text in FAILURES.items()}
    paths = zip(ROUTES, answers, strict=False)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "extsloader status",
            "description": "HTTP/1.1 over /run/extsloader/extsloader.sock; see docs/status.md.",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://localhost"}],
        "paths": {
            route.path: {route.method.lower(): _operation(route, answer)} for route, answer in paths
        },
        "components": {"schemas": dict(schemas), "responses": shared},
    }


def render() -> str:
    """The document as its file has it."""
    return json.dumps(make_document(), indent=2) + "\n"


def _operation(route: Route, answer: dict[str, Any]) -> dict[str, Any]:
    names = [*(("name",) if "{name}" in route.path else ()), *route.parameters]
    kind = CONTENT_TYPE if route.path == METRICS else JSON
    content: dict[str, Any] = {kind: {"schema": answer}}
    if route.path == "/v1/events":
        names.append("Last-Event-ID")
        content["text/event-stream"] = {"schema": {"type": "string"}}
    failures = {code: {"$ref": f"#/components/responses/{code}"} for code in FAILURES}
    good = {"200": {"description": "the answer", "content": content}}
    if route.method == "POST":
        good = {
            "200": {"description": "there is nothing to do", "content": content},
            "202": {"description": "it is being done", "content": content},
        }
    return {
        "summary": route.summary,
        "parameters": [_parameter(name) for name in names],
        "responses": {**good, **failures},
    }


def _parameter(name: str) -> dict[str, Any]:
    place, text, schema = PARAMETERS[name]
    return {
        "name": name,
        "in": place,
        "description": text,
        "required": place == "path",
        "schema": schema,
    }


if __name__ == "__main__":
    sys.stdout.write(render())
