"""Signed manifests that JSON parsers read differently, or that say what no manifest may say."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from extsloader.model.helper import Request
from extsloader.model.reasons import Code
from tests.hostile.judge import (
    GOOD,
    PAYLOAD,
    Json,
    accepted,
    judge,
    manifest,
    refusal,
    sealed,
    services,
)

pytestmark = pytest.mark.hostile

TEXT = PAYLOAD.decode()
DEEP = '"x-note":' + "[" * 15 + "]" * 15


def with_first(member: str) -> bytes:
    """The manifest with one more member in front."""
    return f"{{{member},{TEXT[1:]}".encode()


def in_place_of(good: str, bad: str) -> bytes:
    assert good in TEXT
    return TEXT.replace(good, bad, 1).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("good", "twice"),
    [
        ('"sequence":1', '"sequence":1,"sequence":1'),
        ('"sequence":1', r'"sequence":1,"sequenc\u0065":2'),
        ('"essential":false', '"essential":false,"essential":true'),
        ('"pids":2', '"pids":2,"pids":3'),
        ('"sequence":1', '"x-a":1,"x-a":1,"sequence":1'),
    ],
    ids=["top", "escaped", "service", "limits", "note"],
)
def test_h031_a_member_twice(asked: Request, good: str, twice: str) -> None:
    raw = json.dumps(manifest(services__0__resources__pids=2), separators=(",", ":"))
    assert good in raw
    assert judge(raw.replace(good, twice, 1).encode(), asked) is Code.SCHEMA


@pytest.mark.parametrize(
    "number",
    ["NaN", "Infinity", "-Infinity", "1e999", "1.0", "1e2", "-0", "-0.0", "01", "+1", "0x1", "1."],
)
def test_h032_numbers_that_are_no_whole_ones(asked: Request, number: str) -> None:
    assert judge(in_place_of('"sequence":1', f'"sequence":{number}'), asked) is Code.SCHEMA


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 4299, "-" + "9" * 4300, "0." + "9" * 5000])
def test_h033_numbers_of_thousands_of_digits(asked: Request, digits: str) -> None:
    raw = sealed(in_place_of('"sequence":1', f'"sequence":{digits}'))
    spent = []
    for _ in range(3):  # the least counts, as in test_graph.py
        before = time.process_time()
        assert refusal(raw, asked)[0] is Code.SCHEMA
        spent.append(time.process_time() - before)
    assert min(spent) < 0.010


@pytest.mark.parametrize("levels", [16, 17, 1000, 40_000])
def test_h034_arrays_in_arrays(asked: Request, levels: int) -> None:
    assert judge(with_first(f'"x-note":{"[" * levels}{"]" * levels}'), asked) is (
        Code.LIMIT if levels == 40_000 else Code.SCHEMA
    )


def test_h034_arrays_that_are_deep_enough_or_only_text(asked: Request) -> None:
    assert accepted(with_first(DEEP), asked).manifest == GOOD
    assert accepted(with_first(f'"x-note":"{"[" * 1000}"'), asked).manifest == GOOD


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        *(("sequence", True), ("sequence", "5"), ("sequence", None), ("schema", True)),
        *(("services__0__essential", 1), ("services__0__essential", "true")),
        *(("services__0__essential", None), ("services__0__resources", None)),
        *(("services__0__resources__memory", None), ("services__0__stop__grace", "5")),
        *(("services__0__stop__grace", True), ("expires", None)),
    ],
)
def test_h035_nothing_is_converted(asked: Request, path: str, wrong: object) -> None:
    assert judge(manifest(**{path: wrong}), asked) is Code.SCHEMA


@pytest.mark.parametrize("text", [r"\ud800", r"\udc00\ud800", r"a\u0000b"])
@pytest.mark.parametrize("place", ["name", "x-note", "argument"])
def test_h036_text_that_cannot_be_written_again(asked: Request, text: str, place: str) -> None:
    if place == "argument":
        raw = json.dumps(manifest(services__0__readiness={"kind": "exec", "command": ["HERE"]}))
        assert judge(raw.replace("HERE", text).encode(), asked) is Code.SCHEMA
    elif place == "name":
        assert judge(in_place_of('"name":"a"', f'"name":"{text}"'), asked) is Code.SCHEMA
    else:
        # A note is dropped, so nobody can write it again; its name is not.
        assert judge(with_first(f'"{text}":1'), asked) is Code.SCHEMA


@pytest.mark.parametrize(
    "raw", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80"]
)
def test_h037_bytes_that_are_no_utf_8(asked: Request, raw: bytes) -> None:
    assert judge(PAYLOAD.replace(b'"1.0"', b'"1' + raw + b'"'), asked) is Code.SCHEMA
    assert judge(PAYLOAD + raw, asked) is Code.SCHEMA


def test_h038_unknown_members_and_notes(asked: Request) -> None:
    assert judge(manifest(extra=1), asked) is Code.SCHEMA
    assert judge(manifest(services__0__extra=1), asked) is Code.SCHEMA
    noted = manifest(**{"x-note": [1], "services__0__x-note": {}})
    assert accepted(noted, asked).manifest == GOOD


@pytest.mark.parametrize("version", [0, -1, 2, "1", ..., 1.0, 10**15])
def test_h039_another_schema(asked: Request, version: object) -> None:
    code, message = refusal(sealed(manifest(schema=version)), asked)
    newer = isinstance(version, int) and version > 1
    assert (code, "a newer core is needed" in message) == (Code.SCHEMA, newer)


@pytest.mark.parametrize(
    "raw",
    [
        PAYLOAD + b"// the end",
        b"/* */" + PAYLOAD,
        PAYLOAD[:-1] + b",}",
        PAYLOAD.replace(b'"', b"'"),
        PAYLOAD.replace(b'"a"', b"a", 1),
    ],
    ids=["comment behind", "comment in front", "comma", "quotes", "no quotes"],
)
def test_h040_what_is_almost_json(asked: Request, raw: bytes) -> None:
    assert judge(raw, asked) is Code.SCHEMA


def test_h040_a_megabyte_of_spaces(asked: Request) -> None:
    assert judge(PAYLOAD + b" " * (1 << 20), asked) is Code.LIMIT
    assert judge(PAYLOAD + b" " * 10_000, asked) is None


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"7", b"true", b"null", b"[" + PAYLOAD + b"]"])
def test_h041_a_manifest_that_is_no_object(asked: Request, raw: bytes) -> None:
    assert judge(raw, asked) is Code.SCHEMA


@pytest.mark.parametrize("name", ["__proto__", "__class__", "constructor", "__init__", "self"])
@pytest.mark.parametrize("place", ["", "services__0__", "image__"])
def test_h044_members_that_mean_something_to_programs(
    asked: Request, name: str, place: str
) -> None:
    found = manifest()
    target: Any = {"": found, "image__": found["image"], "services__0__": found["services"][0]}
    target[place][name] = {"arch": "amd64"}
    assert judge(found, asked) is Code.SCHEMA


def test_h045_no_services(asked: Request) -> None:
    assert judge(manifest(services=[]), asked) is Code.SCHEMA
    assert judge(manifest(services=[], empty=True), asked) is Code.SCHEMA


@pytest.mark.parametrize(
    "many",
    [services({f"s{n}": [] for n in range(65)}), [{}] * 10_000, [1] * 20_000],
    ids=["65", "10,000 empty ones", "20,000 numbers"],
)
def test_h046_too_many_services(asked: Request, many: list[Json]) -> None:
    assert judge(manifest(services=many), asked) is Code.LIMIT


def turned(value: Any) -> Any:
    """The same members in the opposite order, at every level."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(part) for part in value] if isinstance(value, list) else value


def test_h047_members_in_another_order(asked: Request) -> None:
    assert accepted(turned(manifest()), asked).manifest == GOOD


def test_h048_texts_that_are_too_long(asked: Request) -> None:
    assert judge(manifest(**{"x-note": "x" * (1 << 20)}), asked) is Code.LIMIT
    for length, verdict in ((4096, None), (4097, Code.LIMIT)):
        readiness = {"kind": "exec", "command": ["x" * length]}
        assert judge(manifest(services__0__readiness=readiness), asked) is verdict


def paths(value: Any, path: str = "") -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in items:
        yield f"{path}{name}"
        if isinstance(part, dict | list):
            yield from paths(part, f"{path}{name}__")


def test_h043_each_member_with_each_other_type_is_refused(asked: Request) -> None:
    for path in paths(manifest()):
        wrongs: tuple[object, ...] = (None, [[]], {"a": {}})
        for wrong in wrongs:
            assert judge(manifest(**{path: wrong}), asked) in (Code.SCHEMA, Code.PATH), path
