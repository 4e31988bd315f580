"""The manifest's schema: the same as the model, strict, and clear about all problems at once."""

import copy
import dataclasses
import json
import time
import types
import typing
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from extsloader.image import schema
from extsloader.image.schema import encode_manifest, find_problems, parse_manifest
from extsloader.model import manifest as model
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from tests.fakes import images

Json = dict[str, Any]


@pytest.fixture
def good(tmp_path: Path) -> Json:
    wanted = images.manifest(images.unsigned(tmp_path / "image"))
    found: Json = json.loads(encode_manifest(wanted))
    return found


def refusal(found: Json) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        parse_manifest(json.dumps(found).encode())
    return caught.value.problem.code, caught.value.problem.message


def place(found: Json, path: str, value: object) -> Json:
    """A copy with the member at `services.0.stop.grace` set; `...` removes it."""
    found = copy.deepcopy(found)
    *parents, last = path.split(".")
    target: Any = found
    for part in parents:
        target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
    if value is ...:
        del target[last]
    else:
        target[int(last) if isinstance(target, list) else last] = value
    return found


def is_model(checked: object) -> bool:
    return isinstance(checked, type) and issubclass(checked, BaseModel)


PAIRS = [
    (checked, getattr(model, name))
    for name, checked in vars(schema).items()
    if is_model(checked) and checked is not BaseModel and not name.startswith("_")
]


def shape(annotation: Any) -> Any:
    """A type without its limits: literals, patterned strings and new types are plain strings."""
    annotation = getattr(annotation, "__supertype__", annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return shape(arguments[0])
    if origin is typing.Literal:
        return {type(argument) for argument in arguments}.pop()
    if arguments:
        kind = types.UnionType if origin is typing.Union else origin
        return (kind, *(shape(argument) for argument in arguments))
    if is_model(annotation) or dataclasses.is_dataclass(annotation):
        return annotation.__name__
    return annotation


@pytest.mark.parametrize(("checked", "plain"), PAIRS, ids=lambda kind: kind.__name__)
def test_schema_and_model_have_the_same_members_types_and_defaults(
    checked: type[BaseModel], plain: type
) -> None:
    hints = typing.get_type_hints(plain)
    expected = {
        field.name: (shape(hints[field.name]), repr(field.default))
        for field in dataclasses.fields(plain)
    }
    missing = repr(dataclasses.MISSING)
    got = {
        info.alias or name: (
            shape(typing.get_type_hints(checked)[name]),
            missing if info.default is PydanticUndefined else repr(info.default),
        )
        for name, info in checked.model_fields.items()
    }
    assert got == expected


def test_all_of_the_model_has_a_schema() -> None:
    classes = {
        name
        for name, kind in vars(model).items()
        if isinstance(kind, type) and kind.__module__ == model.__name__
    }
    enums = {name for name in classes if issubclass(getattr(model, name), StrEnum)}
    assert classes - enums - {"StoredImage"} == {plain.__name__ for _, plain in PAIRS}


def test_what_is_encoded_is_read_again(tmp_path: Path) -> None:
    wanted = images.manifest(images.unsigned(tmp_path / "image"))
    assert parse_manifest(encode_manifest(wanted)) == wanted


def test_member_order_and_notes_change_nothing(good: Json) -> None:
    turned = dict(reversed(good.items()))
    turned["x-note"] = {"anything": [1, 2]}
    turned["services"][0]["x-owner"] = "me"
    assert parse_manifest(json.dumps(turned).encode()) == parse_manifest(json.dumps(good).encode())


REQUIRED = [
    where + (info.alias or name)
    for checked, where in (
        (schema.Manifest, ""),
        (schema.ImageSpec, "image."),
        (schema.Verity, "image.verity."),
        (schema.Compatible, "compatible."),
        (schema.Service, "services.0."),
    )
    for name, info in checked.model_fields.items()
    if info.is_required()
]


@pytest.mark.parametrize("path", REQUIRED)
def test_h042_each_required_member_is_named_when_it_is_missing(good: Json, path: str) -> None:
    _, message = refusal(place(good, path, ...))
    assert f"{path.removeprefix('services.0.')} is missing" in message


def leaves(found: Any, path: str = "") -> Iterator[str]:
    if isinstance(found, dict | list) and found:
        items = found.items() if isinstance(found, dict) else enumerate(found)
        for name, part in items:
            yield from leaves(part, f"{path}.{name}".removeprefix("."))
    else:
        yield path


def test_h043_each_member_is_named_when_its_type_is_wrong(good: Json) -> None:
    wrongs: tuple[object, ...] = (True, 1, 1.5, "5", [], {}, [1])
    checked = 0
    for path in [*leaves(good), "image", "services", "services.1.stop"]:
        current: Any = good
        for part in path.split("."):
            current = current[int(part)] if isinstance(current, list) else current[part]
        for wrong in wrongs:
            numbers = isinstance(current, float) and type(wrong) in (int, float)
            if type(wrong) is type(current) or numbers:
                continue
            checked += 1
            problems = find_problems(place(good, path, wrong))
            last = [part for part in path.split(".") if not part.isdigit()][-1]
            assert any(last in sentence for _, sentence in problems), (path, wrong)
    assert checked > 300


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("schema", value) for value in (0, -1, 1.0, True)),
        *(("sequence", value) for value in (0, -1, 1.0, True)),
        *(("image.size", value) for value in (0, -1, 4095, 4096, 2**31 - 1, 2**31)),
        *(("image.digest", "A" * 64), ("image.digest", "0" * 63), ("image.digest", "0" * 65)),
        *(("image.digest", f"sha256:{'0' * 64}"), ("image.digest", " " + "0" * 63)),
        *(("image.format", value) for value in ("erofs", "")),
        *(("image.verity.algorithm", value) for value in ("sha1", "SHA256")),
        *(("image.verity.block_size", value) for value in (512, 8192, 4096.0)),
        *(("image.verity.salt", value) for value in ("0", "0g", "00" * 257, "AA")),
        *(("image.verity.data_blocks", value) for value in (0, -1, 1)),
        *(("image.verity.hash_offset", value) for value in (0, 1, 4096)),
        *(("issued_at", value) for value in ("", "2026-01-01", "2026-01-01T00:00:00")),
        *(("issued_at", value) for value in ("2026-01-01T00:00:00+00:00", "2026-13-01T00:00:00Z")),
        *(("issued_at", value) for value in ("2026-01-01T00:00:60Z", "\u06602026-01-01T00:00:00Z")),
        *(
            ("expires", value)
            for value in ("never", "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z")
        ),
        *(("version", value) for value in ("", "a b", "a\n", "x" * 129, "../x")),
        *(("compatible.arch", value) for value in ("", "AMD64", "x" * 17)),
        *(("compatible.hypervisors", value) for value in ([], [""], ["KVM"])),
        *(("compatible.core_min", value) for value in ("1.", "v1", "1.2.3.4.5", "\u0661")),
        *(("services.0.restart.base", value) for value in (0, -1, 10**9)),
        *(("services.0.restart.cap", value) for value in (0, 0.5)),
        *(("services.0.restart.jitter", value) for value in (-0.1, 1.1)),
        *(("services.0.restart.limit", value) for value in (-1, 1001)),
        *(("services.0.restart.policy", value) for value in ("", "sometimes")),
        *(("services.0.stop.grace", value) for value in (0, -1, 10**9)),
        *(("services.0.stop.signal", value) for value in ("TERM", "SIGSTOP", "15")),
        *(("services.0.readiness.timeout", value) for value in (0, -1, 10**9)),
        *(("services.0.readiness.kind", value) for value in ("exec", "tcp", "http", "file", "x")),
        *(("services.0.readiness.port", value) for value in (-1, 65536)),
        *(("services.0.readiness.path", value) for value in ("x", "/a b", "/a\n")),
        *(("services.0.readiness.command", value) for value in ([""], ["x"] * 65, "x")),
        *(("services.0.resources.memory", value) for value in (0, 1, -1)),
        *(("services.0.resources.pids", value) for value in (0, 1, 10**9)),
        *(("services.0.resources.cpu_weight", value) for value in (0, 10001)),
        *(("services.0.resources.cpu_quota", value) for value in (0, -1, 10**9)),
        *(("services.0.resources.oom_score_adj", value) for value in (-1001, 1001)),
        *(("services.0.resources.nice", value) for value in (-21, 20)),
        *(("services.0.resources.io_weight", value) for value in (0, 10001)),
    ],
)
def test_values_out_of_range_are_refused_and_named(good: Json, path: str, value: object) -> None:
    code, message = refusal(place(good, path, value))
    assert code is Code.SCHEMA or value == ["x"] * 65
    assert path.rpartition(".")[2] in message


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "-x", "x-", "a/b", "a\n", "a b", "a,b", "a:b", "a\\b", "a%n", "a" * 33),
        *("A", "\u0430", "\uff41", "a\u200db", "a\u202eb", "e\u0301", "\u0131"),
        *("extsloader", "self", "con", "tasks"),
    ],
)
def test_service_names_are_short_plain_words(good: Json, name: str) -> None:
    assert refusal(place(good, "services.1.name", name))[0] is Code.SCHEMA


@pytest.mark.parametrize(
    "bundle",
    [
        *("", "a", "/containers/services/a", "./containers/services/a", "containers/services/"),
        *("containers/services/..", "containers/services/a/../b", "containers/services/a/"),
        *("containers//services/a", "containers/services/.a", "containers/services-evil/a"),
        *("containers/services/a\n", "containers/services/" + "a" * 65),
    ],
)
def test_a_bundle_is_a_directory_of_its_own(good: Json, bundle: str) -> None:
    code, message = refusal(place(good, "services.0.bundle", bundle))
    assert code is Code.PATH
    assert "service a: bundle should match" in message


def test_health_is_asked_by_a_check_and_needs_what_that_needs(good: Json) -> None:
    health = {"kind": "http", "port": 80, "path": "/ok", "action": "degrade"}
    found = parse_manifest(json.dumps(place(good, "services.0.health", health)).encode())
    assert found.services[0].health == model.Health(
        kind=model.ProbeKind.HTTP, port=80, path="/ok", action=model.HealthAction.DEGRADE
    )
    message = refusal(place(good, "services.0.health", {"kind": "tcp"}))[1]
    assert "service a: health of kind tcp needs port" in message
    message = refusal(place(good, "services.0.health", {"kind": "notify"}))[1]
    assert "service a: health kind should be exec, tcp, http, file, got notify" in message


@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        ({"paths": ["dev/tpm0"]}, "conditions.paths[0] should match"),
        ({"archs": ["amd64"]}, "conditions.archs is unknown"),
        ({"command_line": ["two words"]}, "conditions.command_line[0] should match"),
    ],
)
def test_conditions_are_of_a_closed_list(good: Json, conditions: Json, problem: str) -> None:
    assert problem in refusal(place(good, "services.0.conditions", conditions))[1]


def test_an_unknown_member_of_a_service_is_named(good: Json) -> None:
    message = refusal(place(good, "services.0.__proto__", []))[1]
    assert "service a: __proto__ is unknown" in message


def test_a_newer_schema_asks_for_a_newer_core(good: Json) -> None:
    assert "a newer core is needed" in refusal(place(good, "schema", 2))[1]
    assert refusal(place(good, "schema", "1"))[0] is Code.SCHEMA


def test_dependencies_on_nobody_and_doubled_names_are_found(good: Json) -> None:
    code, message = refusal(place(good, "services.0.after", ["nobody"]))
    assert (code, message) == (
        Code.DAG,
        "cannot accept the manifest: service a: after 'nobody', not there",
    )
    twice = place(good, "services.1.name", "a")
    assert "service a is there 2 times" in refusal(place(twice, "services.1.requires", []))[1]


def test_services_are_between_one_and_sixty_four(good: Json) -> None:
    def many(count: int) -> list[Json]:
        return [{"name": f"s{n}", "bundle": f"containers/services/s{n}"} for n in range(count)]

    assert refusal(place(good, "services", []))[0] is Code.SCHEMA
    assert refusal(place(good, "services", many(65)))[0] is Code.LIMIT
    assert not find_problems(place(good, "services", many(64)))


def test_all_problems_come_at_once_and_ten_of_them_in_words(good: Json) -> None:
    bad = place(good, "sequence", 0)
    bad["services"] = [{"name": f"s{n}", "bundle": "x", "requires": ["y"]} for n in range(12)]
    code, message = refusal(bad)
    assert code is Code.SCHEMA
    assert message.startswith("cannot accept the manifest: sequence should be greater than")
    assert message.count(";") == 10
    assert message.endswith("and 15 more")
    assert len(find_problems(bad)) == 25


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"schema":1,"schema":1}', b"\xff", b"{}"])
def test_bytes_that_are_no_manifest_are_refused_with_a_sentence(raw: bytes) -> None:
    with pytest.raises(ImageRefusedError, match="cannot accept the manifest: ") as caught:
        parse_manifest(raw)
    assert caught.value.problem.code is Code.SCHEMA


def test_the_largest_manifest_is_read_quickly(good: Json) -> None:
    names = [f"s{n}" for n in range(64)]
    good["services"] = [
        {"name": name, "bundle": f"containers/services/{name}", "after": names[:n]}
        for n, name in enumerate(names)
    ]
    raw = json.dumps(good).encode()
    before = time.process_time()
    assert len(parse_manifest(raw).services) == 64
    assert time.process_time() - before < 0.5


def test_the_json_schema_knows_no_null_and_allows_notes() -> None:
    text = json.dumps(schema.json_schema())
    assert '"null"' not in text
    assert ": null" not in text
    assert text.count('"^x-"') == len(PAIRS)
