import gzip
import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.linuxkit.definition import Definition, load_definition
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.imagebuild.plan import Cache, Image, plan_layout
from extsloader.imagebuild.steps import Step
from extsloader.imagebuild.tree import Kind, Node, Tree, write_tar

PUBLISHED = Path(__file__).parents[4] / "shared/data/linuxkit-yaml"


def published() -> Iterator[tuple[str, Definition]]:
    if not PUBLISHED.exists():
        pytest.skip("no published definitions here")
    cases = json.loads(gzip.decompress((PUBLISHED / "expected.json.gz").read_bytes()))
    for case in cases:
        if case["valid"]:
            yield case["file"], load_definition(PUBLISHED / case["file"])


@pytest.fixture
def stub(tmp_path: Path) -> Image:
    """An image that is good for everything: a kernel, its modules, and a program."""
    modules = BytesIO()
    write_tar({"lib/modules/6.1/x.ko": Node(kind=Kind.FILE, content=b"module")}, modules)
    contents = {"kernel": b"bzImage", "kernel.tar": modules.getvalue(), "usr/bin/svc": b"#!"}
    tree: Tree = {path: Node(kind=Kind.FILE, content=text) for path, text in contents.items()}
    out = tmp_path / "stub.0.tar"
    with out.open("wb") as file:
        write_tar(tree, file)
    return Image(
        config=ImageConfig(args=("/usr/bin/svc",)),
        rootfs=Step(title="stub", output=out, make=lambda _: None),
    )


def test_the_layout_of_every_published_definition_is_planned_and_written(
    stub: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, definition in published():
        for file in definition.files:
            source = tmp_path / file.source.replace("~/", "")
            if file.source:
                source.parent.mkdir(parents=True, exist_ok=True)
                source.touch()
        images = dict.fromkeys(definition.images, stub)
        step = plan_layout(definition, images, Cache(root=tmp_path), [Path(name)], tmp_path)
        step.make(tmp_path / "out.tar")

        with tarfile.open(tmp_path / "out.tar") as tar:
            paths = set(tar.getnames())
        wanted = {file.path.strip("./") for file in definition.files if not file.optional}
        assert wanted <= paths
        assert ("boot/kernel" in paths) == bool(definition.kernel and definition.kernel.image)
        for entry in definition.services:
            assert f"containers/services/{entry.name}/config.json" in paths


def test_the_layout_is_named_by_what_files_hold_too(stub: Image, tmp_path: Path) -> None:
    path, cache = tmp_path / "a-kvm.yml", Cache(root=tmp_path)
    path.write_text("init: [a]\nfiles: [{path: x, source: x}]\n")
    definition = load_definition(path)

    def plan(content: str) -> str:
        (tmp_path / "x").write_text(content)
        return plan_layout(definition, {"a": stub}, cache, [path], tmp_path).output.name

    one, other = plan("1"), plan("2")
    assert one != other
    assert plan("1") == one
    assert one.startswith("a-kvm-layout.")
