"""From a template to an image definition, as EVE's compose-image-yml.sh and parse-pkgs.sh do.

Only words inside YAML's scalars are replaced, so comments and line numbers stay.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from extsloader.imagebuild.linuxkit.definition import check_definition
from extsloader.imagebuild.yamlfile import parse_yaml
from extsloader.model.errors import SettingsError

_WORD = re.compile(r"\b[A-Z][A-Z0-9_]*\b")
_PLACEHOLDER = re.compile("[A-Z][A-Z0-9_]*_TAG|EVE_VERSION")
_TAG = re.compile("([A-Z][A-Z0-9_]*_TAG)=([A-Za-z0-9][A-Za-z0-9./:@_+-]*)")
_COMMIT = re.compile(".*[0-9a-fA-F]{8}")
_PLAIN = re.compile("[A-Za-z0-9][A-Za-z0-9.+~_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to render a template for."""

    hypervisor: str
    platform: str
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template's text after its modifiers, and the files that it comes from."""

    path: str
    source: str
    text: str  # after its modifiers
    modifiers: Mapping[str, str]  # texts by path

    @property
    def name(self) -> str:
        """What the lines of the text are lines of."""
        return " with ".join([self.path, *self.modifiers])


def render(template: Template, target: Target, tags: Mapping[str, str]) -> str:
    """The text of a definition that is checked. Raises SettingsError with all problems."""
    text = fill(template, target)
    missing = {name for _, name in find_placeholders(text)} - set(tags)
    if missing:
        raise SettingsError(tuple(_describe_missing(template, missing, _words(target))))
    text = _substitute(text, tags)
    check_definition(parse_yaml(text.encode(), template.name))
    return text


def fill(template: Template, target: Target) -> str:
    """The text with everything filled in that is no image. Raises SettingsError."""
    for key, value in (("platform", target.platform), ("version", target.version)):
        if value and not _PLAIN.fullmatch(value):
            problem = f"expected letters, digits and any of . + ~ _ -, got {value!r}"
            raise SettingsError((f"cannot use the {key}: {problem}",))
    parse_yaml(template.text.encode(), template.name)
    return _substitute(template.text, _words(target))


def find_placeholders(text: str) -> list[tuple[int, str]]:
    """Line and name of every scalar that is nothing but a placeholder."""
    return [
        (token.start_mark.line + 1, token.value)
        for token in _scan(text)
        if _PLACEHOLDER.fullmatch(token.value)
    ]


def find_recipes(names: Iterable[str], recipes: Path) -> dict[str, str]:
    """Images that are built from recipes, by their placeholder."""
    local = {name: name.removesuffix("_TAG").lower().replace("_", "-") for name in names}
    return {
        name: f"extsloader/{recipe}:local"
        for name, recipe in local.items()
        if (recipes / recipe / "recipe.yaml").is_file()
    }


def parse_tags(lines: Iterable[str], where: str) -> dict[str, str]:
    """Images by placeholder, from texts NAME_TAG=REFERENCE. Raises SettingsError."""
    matches = [(line, _TAG.fullmatch(line)) for line in lines]
    problems = tuple(
        f"{where}: expected NAME_TAG=REFERENCE, got {line!r}"
        for line, match in matches
        if match is None
    )
    if problems:
        raise SettingsError(problems)
    return {match[1]: match[2] for _, match in matches if match}


def read_tags(text: str, where: str) -> dict[str, str]:
    """The same from a list of EVE's, which has comments and other names too."""
    lines = [line.strip() for line in text.splitlines()]
    return parse_tags([line for line in lines if line.partition("=")[0].endswith("_TAG")], where)


def _words(target: Target) -> dict[str, str]:
    words = {
        "EVE_HV": target.hypervisor,
        "EVE_PLATFORM": target.platform,
        "PILLAR_TAG": _choose_pillar(target),
    }
    return words | ({"EVE_VERSION": target.version} if target.version else {})


def _choose_pillar(target: Target) -> str:
    """Pillar is built in variants; what follows the commit in the version says which is meant."""
    flags = _COMMIT.sub("", target.version).split("-")
    kubernetes = target.hypervisor == "k" or "k" in flags
    return f"PILLAR{'_K' if kubernetes else ''}{'_DEV' if 'dev' in flags else ''}_TAG"


def _substitute(text: str, words: Mapping[str, str]) -> str:
    done = 0
    parts: list[str] = []
    for token in _scan(text):
        start, end = token.start_mark.index, token.end_mark.index
        scalar = _WORD.sub(lambda match: words.get(match[0], match[0]), text[start:end])
        parts += [text[done:start], scalar]
        done = end
    return "".join([*parts, text[done:]])


def _scan(text: str) -> Iterator[yaml.ScalarToken]:
    return (token for token in yaml.scan(text) if isinstance(token, yaml.ScalarToken))


def _describe_missing(
    template: Template, missing: set[str], words: Mapping[str, str]
) -> Iterator[str]:
    """Modifiers move lines, so that a place is looked for where the words came from."""
    places = [
        *((template.path, *found) for found in find_placeholders(
            _substitute(template.source, words))),
        *((path, number, name)
          for path, source in template.modifiers.items()
          for number, line in enumerate(source.splitlines(), 1)
          for name in _WORD.findall(line)),
    ]  # fmt: skip
    for path, line, name in places:
        if name in missing:
            yield f"{path}:{line}: {name}: {_hint(name)}"
    for name in sorted(missing - {name for _, _, name in places}):  # composed by a modifier
        yield f"{template.name}: {name}: {_hint(name)}"


def _hint(name: str) -> str:
    if name == "EVE_VERSION":
        return "expected a version, got none: give --version"
    return f"no image is known for it: give --tag {name}=REFERENCE, or make its recipe"
