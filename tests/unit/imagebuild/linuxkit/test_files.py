from pathlib import Path
from typing import Any

import pytest

from extsloader.imagebuild.linuxkit.definition import parse_definition
from extsloader.imagebuild.linuxkit.files import lay_out_files
from extsloader.imagebuild.tree import Extent, Kind, Tree, read_content
from extsloader.model.errors import SettingsError


def lay(directory: Path, *files: dict[str, Any]) -> Tree:
    definition = parse_definition(
        {"files": list(files), "services": [{"name": "web", "image": "web:1"}]}, "x.yml"
    )
    return lay_out_files(definition, directory, "x.yml")


def test_every_kind_of_file_has_its_mode(tmp_path: Path) -> None:
    (tmp_path / "eve_version").write_text("1.2.3")

    tree = lay(
        tmp_path,
        {"path": "/a", "contents": "text"},
        {"path": "b", "directory": True},
        {"path": "./c", "symlink": "/x"},
        {"path": "d", "source": "eve_version", "mode": "4755", "uid": "web", "gid": 7},
        {"path": "e", "directory": True, "mode": "1777"},
    )

    assert [(path, node.kind, oct(node.mode)) for path, node in tree.items()] == [
        ("a", Kind.FILE, "0o600"),
        ("b", Kind.DIRECTORY, "0o700"),
        ("c", Kind.LINK, "0o600"),
        ("d", Kind.FILE, "0o4755"),
        ("e", Kind.DIRECTORY, "0o1777"),
    ]
    assert (tree["c"].target, read_content(tree["a"])) == ("/x", b"text")
    assert (tree["d"].uid, tree["d"].gid) == (100, 7)
    assert tree["d"].content == Extent(tmp_path / "eve_version", 0, 5)


@pytest.mark.parametrize(
    ("mode", "parent"), [("0644", 0o755), ("0600", 0o700), ("0640", 0o750), ("0204", 0o305)]
)
def test_parents_may_be_passed_by_whoever_may_use_the_file(
    tmp_path: Path, mode: str, parent: int
) -> None:
    tree = lay(tmp_path, {"path": "a/b/c", "contents": "", "mode": mode, "uid": 5})

    assert [(tree[path].mode, tree[path].uid) for path in ("a", "a/b")] == [(parent, 5)] * 2


def test_a_parent_keeps_what_the_first_file_below_it_said(tmp_path: Path) -> None:
    tree = lay(
        tmp_path,
        {"path": "a", "directory": True, "mode": "0711"},
        {"path": "a/b", "contents": "", "mode": "0644"},
        {"path": "c/d", "contents": "", "mode": "0644"},
        {"path": "c/e", "contents": "", "mode": "0600"},
    )

    assert (tree["a"].mode, tree["c"].mode) == (0o711, 0o755)


def test_a_missing_source_is_named_and_an_optional_one_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()

    with pytest.raises(SettingsError) as caught:
        lay(
            tmp_path,
            {"path": "a", "source": "nowhere", "optional": True},
            {"path": "b", "source": "nowhere"},
            {"path": "c", "source": "directory"},
        )

    assert caught.value.problems == (
        f"x.yml: files.1.source: cannot read {tmp_path}/nowhere: no such file or directory",
        f"x.yml: files.2.source: cannot read {tmp_path}/directory: is a directory",
    )
    assert lay(tmp_path, {"path": "a", "source": "nowhere", "optional": True}) == {}
