"""LinuxKit image definitions: every section and key of LinuxKit's schema, no other.

Stricter than LinuxKit in what would only fail, or do harm, later: names that are no plain
directories, paths with `..`, volumes and user names that nothing defines.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from extsloader.imagebuild.linuxkit.container import Extended, Id, Strict
from extsloader.imagebuild.yamlfile import Document, Finding, check, read_yaml, tell
from extsloader.model.errors import SettingsError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
"""LinuxKit does not check names; ours become directories, cgroups and container ids."""

VolumeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+$")]
Image = Annotated[str, StringConstraints(pattern=r"^\S+$")]

_CONTENTS = ("directory", "symlink", "contents", "source", "metadata")


class Entry(Extended):
    """One container of an image definition."""

    name: Name
    image: Image


class Kernel(Strict):
    """The image that holds the kernel, and the names of the files in it."""

    image: str = ""
    cmdline: str = ""
    binary: str = "kernel"
    tar: str = "kernel.tar"
    ucode: str = ""


class Trust(Strict):
    """LinuxKit reads this and does nothing with it; neither do we."""

    image: list[str] = Field(default=[])
    org: list[str] = Field(default=[])


class File(Strict):
    """One more file of the image; it is written last and so replaces others."""

    path: Annotated[str, StringConstraints(min_length=1)]
    directory: bool = False
    symlink: str = ""
    contents: str | None = None
    source: str = ""
    metadata: Literal["", "yaml", "json"] = ""
    optional: bool = False
    mode: Annotated[str, StringConstraints(pattern=r"^[0-7]{0,5}$")] = ""
    uid: Id = 0
    gid: Id = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = PurePosixPath(self.path).parts
        if ".." in parts or not set(parts) - {"/"}:
            raise ValueError(f"expected a path below the root without `..`, got {self.path!r}")
        given = [key for key in _CONTENTS if getattr(self, key) not in (False, "", None)]
        given += ["contents"] if self.contents == "" else []
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ValueError(f"expected one of {', '.join(_CONTENTS)}, got {got}")
        return self


class Volume(Strict):
    """A directory that containers share; without an image it begins empty."""

    name: VolumeName
    image: str = ""
    readonly: bool = False
    format: Literal["", "filesystem", "oci"] = ""
    platforms: list[str] = Field(default=[])


class Definition(Strict):
    """An image definition."""

    kernel: Kernel | None = None
    init: list[Image] = Field(default=[])
    onboot: list[Entry] = Field(default=[])
    onshutdown: list[Entry] = Field(default=[])
    services: list[Entry] = Field(default=[])
    trust: Trust | None = None
    files: list[File] = Field(default=[])
    volumes: list[Volume] = Field(default=[])

    @property
    def sections(self) -> dict[str, list[Entry]]:
        """All containers, in LinuxKit's order."""
        return {
            "onboot": self.onboot, "onshutdown": self.onshutdown, "services": self.services,
        }  # fmt: skip

    @property
    def images(self) -> tuple[str, ...]:
        """Every image once."""
        containers = (entry.image for entries in self.sections.values() for entry in entries)
        kernel = self.kernel.image if self.kernel else ""
        volumes = (volume.image for volume in self.volumes)
        wanted = (kernel, *self.init, *volumes, *containers)
        return tuple(dict.fromkeys(image for image in wanted if image))

    @property
    def ids(self) -> dict[str, int]:
        """LinuxKit gives every container an id that `uid` and `gid` may name."""
        entries = [entry for section in self.sections.values() for entry in section]
        return {entry.name: number for number, entry in enumerate(entries, 100)}


def find_id(value: int | str | None, ids: Mapping[str, int]) -> int | None:
    """The number of an id; None where nothing has the name."""
    if isinstance(value, int):
        return value
    return 0 if value in (None, "", "root") else ids.get(str(value))


def parse_definition(document: object, where: str) -> Definition:
    """Check a definition. Raises SettingsError with all problems."""
    return check_definition(Document(content=document, name=where))


def load_definition(*paths: Path) -> Definition:
    """Read a definition, or several that are appended to the first as LinuxKit does.

    Raises SettingsError with all problems.
    """
    return check_definition(*map(read_yaml, paths))


def check_definition(*documents: Document) -> Definition:
    """Check documents and append them. Raises SettingsError with all problems."""
    parts = [(check(Definition, document), document) for document in documents]
    definition = reduce(_append, (part for part, _ in parts))
    findings = (
        *_find_twice("services", [entry.name for entry in definition.services]),
        *_find_twice("volumes", [volume.name for volume in definition.volumes]),
        *_find_unknown_ids(definition),
        *_find_wrong_volumes(definition),
    )
    told: dict[str, list[Finding]] = {}
    for finding in findings:
        name, own = _locate(finding, parts)
        told.setdefault(name, []).append(own)
    if findings:
        raise SettingsError(
            tuple(
                problem
                for document in documents
                for problem in tell(told.get(document.name, ()), document)
            )
        )
    return definition


def _append(first: Definition, second: Definition) -> Definition:
    """Lists follow each other; what the second says about the kernel replaces the first's word."""
    sections = ("init", "onboot", "onshutdown", "services", "files", "volumes")
    lists = {name: [*getattr(first, name), *getattr(second, name)] for name in sections}
    kernel = first.kernel or second.kernel
    if kernel and second.kernel:
        said = second.kernel.model_dump(exclude_unset=True)
        # Only `tar` and `ucode` mean something when they are empty.
        own = {key: value for key, value in said.items() if value or key in ("tar", "ucode")}
        kernel = kernel.model_copy(update=own)
    return first.model_copy(update={**lists, "kernel": kernel})


def _locate(finding: Finding, parts: Sequence[tuple[Definition, Document]]) -> tuple[str, Finding]:
    """The file that a place in the whole is in, and the finding with its place there."""
    (section, number, *rest), text = finding
    index = int(number)
    for part, document in parts:
        length = len(getattr(part, str(section)))
        if index < length:
            return document.name, ((section, index, *rest), text)
        index -= length
    raise LookupError(f"no {section}.{number}")


def _find_twice(section: str, names: list[str]) -> Iterator[Finding]:
    twice = [name for name, times in Counter(names).items() if times > 1]
    for name in twice:
        last = len(names) - 1 - names[::-1].index(name)
        yield (section, last, "name"), f"expected a name of its own, got {name} twice"


def _find_unknown_ids(definition: Definition) -> Iterator[Finding]:
    users: dict[tuple[str, int], Entry | File] = {
        (section, number): entry
        for section, entries in definition.sections.items()
        for number, entry in enumerate(entries)
    }
    users |= {("files", number): file for number, file in enumerate(definition.files)}
    for place, user in users.items():
        for key, value in _list_ids(user):
            if find_id(value, definition.ids) is None:
                text = f"expected a number, root or the name of a container, got {value!r}"
                yield (*place, *key), text


def _list_ids(user: Entry | File) -> list[tuple[tuple[str | int, ...], int | str | None]]:
    groups = (user.additional_gids or ()) if isinstance(user, Entry) else ()
    more = [(("additionalGids", number), group) for number, group in enumerate(groups)]
    return [(("uid",), user.uid), (("gid",), user.gid), *more]


def _find_wrong_volumes(definition: Definition) -> Iterator[Finding]:
    readonly = {volume.name: volume.readonly for volume in definition.volumes}
    for section, entries in definition.sections.items():
        for number, entry in enumerate(entries):
            for key, binds in (("binds", entry.binds or ()), ("binds.add", entry.binds_add)):
                for i, bind in enumerate(binds):
                    if problem := _find_volume_problem(bind, readonly):
                        yield (section, number, key, i), problem


def _find_volume_problem(bind: str, readonly: Mapping[str, bool]) -> str | None:
    source, _, *options = bind.split(":")
    if source.startswith("/"):
        return None
    if source not in readonly:
        return f"expected a path or the name of a volume, got {source!r}"
    if readonly[source] and options != ["ro"]:
        return f"expected {source} with :ro, as the volume is, got {bind!r}"
    return None
