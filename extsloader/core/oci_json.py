"""Strict reading of a bundle's JSON: findings are collected, nothing is raised.

The files are signed, so this guards against a careless author, who wants to see everything that
is wrong at once, and against a reader other than the one that the author tested with: duplicate
keys, for one, mean the first value to some parsers and the last to others.
"""

import json
import re
from dataclasses import dataclass, field
from typing import TypeVar

from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code, Problem
from extsloader.model.text import printable

MAX_CHARACTERS = 256 << 10
MAX_DEPTH = 32
MAX_ITEMS = 512  # of one list
MAX_LIST_CHARACTERS = 64 << 10  # execve(2) takes 128 KiB for one argument
MAX_SHOWN = 20  # findings in one message
MAX_SHOWN_TEXT = 80
MAX_DIGITS = 20  # of 2^64 - 1, the largest number of the OCI specification
_UNUSABLE = re.compile("[\0\ud800-\udfff]")

_KINDS: dict[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "an object",
}

T = TypeVar("T", str, bool, int, list[object], dict[str, object])


def shown(text: str) -> str:
    """A text from the image for a message: quoted, escaped and cut to one line."""
    return f"'{printable(text[:MAX_SHOWN_TEXT])}{'...' if len(text) > MAX_SHOWN_TEXT else ''}'"


def join(sentences: tuple[str, ...]) -> str:
    """One sentence of many, cut after a number that a person can still read."""
    more = len(sentences) - MAX_SHOWN
    return "; ".join((*sentences[:MAX_SHOWN], *([f"and {more} more"] if more > 0 else [])))


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with one bundle, and what of it the device does not honour."""

    wrong: list[tuple[Code, str]] = field(default_factory=list)
    reduced: list[str] = field(default_factory=list)

    def add(self, sentence: str, code: Code = Code.BUNDLE) -> None:
        """Remember one thing that makes the bundle unusable."""
        self.wrong.append((code, sentence))

    def problem(self, service: ServiceName) -> Problem | None:
        """All findings in one sentence; None where there are none."""
        if not self.wrong:
            return None
        codes = {code for code, _ in self.wrong}
        return Problem(
            codes.pop() if len(codes) == 1 else Code.BUNDLE,
            f"cannot use the bundle of {service}: {join(tuple(s for _, s in self.wrong))}",
            "correct the service's entry in the LinuxKit file and build the image again",
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One object of a file. Each reader returns an empty value for what is missing or wrong."""

    where: str  # "config.json", "config.json process.user"
    value: dict[str, object]
    findings: Findings

    def _take(self, key: str, kind: type[T]) -> T | None:
        value = self.value.get(key)
        if value is None:  # null is what Go writes for an empty list
            return None
        if type(value) is kind:  # not isinstance: True is an int in Python
            return value
        self.wrong(key, f"must be {_KINDS[kind]}, got {_KINDS[type(value)]}")
        return None

    def wrong(self, key: str, sentence: str, code: Code = Code.BUNDLE) -> None:
        """Remember what is wrong with the value of `key`."""
        self.findings.add(f"{self.at(key)} {sentence}", code)

    def at(self, key: str) -> str:
        """Where the value of `key` stands."""
        return f"{self.where}{'.' if ' ' in self.where else ' '}{key}"

    def text(self, key: str) -> str:
        """A string, "" where there is none."""
        return self._take(key, str) or ""

    def flag(self, key: str) -> bool:
        """A boolean, False where there is none."""
        return self._take(key, bool) or False

    def number(self, key: str, low: int, high: int) -> int | None:
        """A whole number within the bounds."""
        value = self._take(key, int)
        if value is not None and not low <= value <= high:
            self.wrong(key, f"must be between {low} and {high}, got {value}")
            return None
        return value

    def items(self, key: str) -> list[object]:
        """A list of anything, cut with a finding where it is too long."""
        items = self._take(key, list) or []
        if len(items) > MAX_ITEMS:
            self.wrong(key, f"must hold at most {MAX_ITEMS}, got {len(items)}", Code.LIMIT)
        return items[:MAX_ITEMS]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        texts = self._all(key, str)
        if (length := sum(map(len, texts))) > MAX_LIST_CHARACTERS:
            most = f"at most {MAX_LIST_CHARACTERS} characters"
            self.wrong(key, f"must hold {most}, got {length}", Code.LIMIT)
        return texts

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        return self._all(key, int)

    def node(self, key: str) -> "Node":
        """An object."""
        return Node(self.at(key), self._take(key, dict) or {}, self.findings)

    def nodes(self, key: str) -> tuple["Node", ...]:
        """A list of objects."""
        objects = enumerate(self._all(key, dict))
        return tuple(Node(self.at(f"{key}[{i}]"), item, self.findings) for i, item in objects)

    def _all(self, key: str, kind: type[T]) -> tuple[T, ...]:
        items = self.items(key)
        good = tuple(item for item in items if type(item) is kind)
        if len(good) < len(items):
            self.wrong(key, f"must hold only {_KINDS[kind].split()[-1]}s")
        return good

    def leave_out(self, *known: str) -> None:
        """Say which other keys carry something that will not be used."""
        for key in sorted(self.value.keys() - set(known)):
            if self.value[key]:
                self.findings.reduced.append(f"{self.at(shown(key)[1:-1])} is not used")


def parse(name: str, text: str, findings: Findings) -> Node:
    """Read the file `name`; an empty object, with a finding, where it is no good JSON."""
    reason = ""
    value: object = {}
    if len(text) > MAX_CHARACTERS:
        reason = f"is longer than {MAX_CHARACTERS} characters"
    else:
        try:
            value = _DECODER.decode(text)
            _check_content(value)
        except ValueError as error:
            reason = f"is not usable JSON: {error}"
        except RecursionError:
            reason = f"is nested deeper than {MAX_DEPTH}"
    if not reason and not isinstance(value, dict):
        reason = "must be an object"
    if reason:
        findings.add(f"{name} {reason}")
    return Node(name, value if isinstance(value, dict) and not reason else {}, findings)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {shown(key)} occurs twice")
        result[key] = value
    return result


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"number of {len(digits)} digits")
    return int(digits)


def _refuse_number(text: str) -> float:
    raise ValueError(f"number {shown(text)} is not whole")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_whole,
    parse_float=_refuse_number,
    parse_constant=_refuse_number,
)


def _check_content(value: object) -> None:
    """Refuse what no path, argument or runtime can carry: NUL and lone surrogates."""
    level = [value]
    for _ in range(MAX_DEPTH):
        for text in level:
            if isinstance(text, str) and _UNUSABLE.search(text):
                raise ValueError(f"text {shown(text)} holds NUL or half a character")
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise RecursionError


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []
