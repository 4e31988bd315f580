"""Debian packages as data: dependency closure and lock file, from recorded tool output."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from extsloader.model.errors import SettingsError

_DEPENDS = re.compile(r" +(?P<alternative>\|)?(?:Pre)?Depends: (?P<name>\S+)")
_LOCK_LINE = re.compile(r"(\S+) (\S+) (\S+) ([0-9a-f]{64})")
_HEADER = "# Made by `mkext lock {name}`: package, version, architecture, SHA-256 of the archive.\n"


@dataclass(frozen=True, slots=True, order=True)
class Deb:
    """One package archive, named completely."""

    package: str
    version: str
    architecture: str
    sha256: str

    @property
    def file_name(self) -> str:
        """As `apt-get download` calls it: a colon in the version is escaped."""
        return f"{self.package}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


def parse_depends(text: str) -> dict[str, tuple[str, ...]]:
    """Read `apt-cache depends --recurse`: what each package needs, first alternatives only."""
    needs: dict[str, list[str]] = {}
    current: list[str] = []
    chosen = False  # the line before was an alternative of the same dependency
    for line in text.splitlines():
        if not line.startswith((" ", "|")):
            current, chosen = needs.setdefault(line.strip(), []), False
        elif match := _DEPENDS.fullmatch(line):
            if not chosen:
                current.append(match["name"])
            chosen = match["alternative"] is not None
        # Deeper lines list who provides a virtual package: choosing is the recipe's job.
    return {name: tuple(names) for name, names in needs.items()}


def close(
    packages: Iterable[str], exclude: Collection[str], needs: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """All packages that these need, without the excluded ones and what only those need.

    Raises SettingsError for a virtual package, which has no archive.
    """
    todo, closed = list(packages), set[str]()
    while todo:
        name = todo.pop()
        if name in closed or name.strip("<>") in exclude:
            continue
        closed.add(name)
        todo += needs.get(name, ())
    problems = tuple(
        f"cannot choose a provider of the virtual package {name.strip('<>')}: "
        "name one in `packages` and the virtual one in `exclude`"
        for name in sorted(closed)
        if name.startswith("<")
    )
    if problems:
        raise SettingsError(problems)
    return tuple(sorted(closed))


def parse_show(text: str) -> tuple[Deb, ...]:
    """Read `apt-cache show`; a package that is only installed has no digest and is left out."""
    found = []
    for stanza in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in stanza.splitlines()
            if line.startswith(("Package: ", "Version: ", "Architecture: ", "SHA256: "))
        )
        if "SHA256" in fields:
            found.append(
                Deb(fields["Package"], fields["Version"], fields["Architecture"], fields["SHA256"])
            )
    return tuple(found)


def format_lock(name: str, debs: Iterable[Deb]) -> str:
    """Write a lock file."""
    lines = (
        f"{deb.package} {deb.version} {deb.architecture} {deb.sha256}\n" for deb in sorted(debs)
    )
    return _HEADER.format(name=name) + "".join(lines)


def parse_lock(text: str, where: str) -> tuple[Deb, ...]:
    """Read a lock file. Raises SettingsError with every line that is none of ours."""
    debs, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if match := _LOCK_LINE.fullmatch(line):
            debs.append(Deb(*match.groups()))
        else:
            problems.append(
                f"{where}:{number}: expected package, version, architecture, SHA-256; got {line!r}"
            )
    if problems:
        raise SettingsError(tuple(problems))
    return tuple(debs)
