"""The `files` of a definition, each from where its content comes."""

from collections.abc import Mapping
from pathlib import Path

from extsloader.imagebuild.linuxkit.definition import Definition, File, find_id
from extsloader.imagebuild.linuxkit.metadata import format_metadata
from extsloader.imagebuild.tree import Extent, Kind, Node, Tree, make_inside, parents, put_over
from extsloader.model.errors import SettingsError


def lay_out_files(definition: Definition, directory: Path, where: str) -> Tree:
    """All files with their parents; sources are relative to the directory.

    A parent gets the mode and owner of the first file below it, whatever images have there: a
    file without a mode makes its directory 0700. So does LinuxKit.
    Raises SettingsError with all problems.
    """
    tree: Tree = {}
    problems: list[str] = []
    for number, file in enumerate(definition.files):
        try:
            content = _find_content(file, definition, directory)
        except OSError as error:
            reason = f"cannot read {error.filename}: {str(error.strerror).lower()}"
            problems.append(f"{where}: files.{number}.source: {reason}")
            continue
        if content is None:
            continue
        node = _make_node(file, content, definition.ids)
        path = make_inside(file.path, where)
        above = {parent: _make_parent(node) for parent in parents(path) if parent not in tree}
        put_over(tree, above | {path: node})
    if problems:
        raise SettingsError(tuple(problems))
    return tree


def _find_content(file: File, definition: Definition, directory: Path) -> bytes | Extent | None:
    """None where an optional source is not there. Raises OSError."""
    if file.metadata:
        return format_metadata(definition, file.metadata)
    if not file.source:
        return (file.contents or "").encode()
    in_home = file.source.startswith("~/")
    source = Path.home() / file.source[2:] if in_home else directory / file.source
    if file.optional and not source.exists():
        return None
    with source.open("rb"):
        return Extent(source, 0, source.stat().st_size)


def _make_node(file: File, content: bytes | Extent, ids: Mapping[str, int]) -> Node:
    kind = (
        Kind.DIRECTORY if file.directory
        else Kind.LINK if file.symlink
        else Kind.FILE
    )  # fmt: skip
    mode = int(file.mode, 8) if file.mode else 0o700 if file.directory else 0o600
    uid, gid = (find_id(value, ids) or 0 for value in (file.uid, file.gid))
    return Node(kind=kind, mode=mode, uid=uid, gid=gid, content=content, target=file.symlink)


def _make_parent(node: Node) -> Node:
    """Whoever may read or write the file may pass through its directories."""
    mode = node.mode
    for who in (0o700, 0o070, 0o007):
        mode |= 0o111 & who if mode & who else 0
    return Node(kind=Kind.DIRECTORY, mode=mode, uid=node.uid, gid=node.gid)
