import gzip
from collections import defaultdict
from pathlib import Path

import pytest

from extsloader.imagebuild.linuxkit.bundles import plan_bundles
from extsloader.imagebuild.linuxkit.container import Container
from extsloader.imagebuild.linuxkit.definition import (
    Definition,
    load_definition,
    parse_definition,
)
from extsloader.imagebuild.linuxkit.files import lay_out_files
from extsloader.imagebuild.linuxkit.layout import (
    check_buildable,
    check_volumes,
    lay_out,
    prepare_content,
)
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.tree import (
    DIRECTORY,
    Kind,
    Node,
    Tree,
    read_content,
    read_tar,
    write_tar,
)
from extsloader.model.errors import ImageRefusedError, SettingsError

LINUXKIT = Path(__file__).parents[5] / "shared/data/linuxkit-image"

FILE = Node(kind=Kind.FILE, content=b"#!")
LINK = Node(kind=Kind.LINK, mode=0o777, target="usr/lib")
RESOLV = Node(kind=Kind.FILE, content=b"\n")


def lay(definition: Definition, images: dict[str, Tree], files: Tree | None = None) -> Tree:
    bundles = plan_bundles(definition, dict.fromkeys(images, ImageConfig(args=("/svc",))), "x.yml")
    return lay_out(definition, bundles, images, files or {})


def test_a_definition_of_a_system_that_boots_is_good_but_no_pkgs_image() -> None:
    definition = parse_definition(
        {
            "kernel": {"image": "kernel:1"},
            "onboot": [{"name": "a", "image": "x:1"}],
            "volumes": [{"name": "v"}],
        },
        "eve.yml",
    )

    with pytest.raises(SettingsError) as caught:
        check_buildable(definition, "eve.yml")

    places = [problem.split(": ")[1] for problem in caught.value.problems]
    assert places == ["kernel", "onboot", "volumes", "services"]


def test_the_content_of_an_image_is_cleaned_up_as_linuxkit_does() -> None:
    found = prepare_content(
        {
            ".dockerenv": FILE,
            "dev/console": FILE,
            "etc/hosts": FILE,
            "etc/hostname": FILE,
            "etc/mtab": FILE,
            "proc": Node(kind=Kind.DIRECTORY, mode=0o555),
            "s": FILE,
        },
        RESOLV,
    )

    assert set(found) == {
        *("dev", "dev/pts", "dev/shm", "etc", "etc/hosts", "etc/mtab", "etc/resolv.conf"),
        *("proc", "sys", "s"),
    }
    assert read_content(found["etc/hosts"]).startswith(b"127.0.0.1")
    assert found["etc/resolv.conf"] == RESOLV
    assert found["proc"] == DIRECTORY
    assert found["etc/mtab"] == FILE  # only where there is none, one is made


def test_later_init_images_and_files_replace_what_earlier_ones_brought() -> None:
    definition = parse_definition({"init": ["init:1", "runc:1"]}, "x.yml")
    first: Tree = {"bin/a": FILE, "bin/b": FILE, "var/run": LINK}
    second: Tree = {"bin/b": RESOLV, "var/run/x": FILE}

    tree = lay(definition, {"init:1": first, "runc:1": second}, {"etc/resolv.conf": RESOLV})

    assert (tree["bin/a"], tree["bin/b"]) == (FILE, RESOLV)
    assert tree["var/run"].kind is Kind.DIRECTORY  # never through a link, wherever it leads
    assert tree["etc/resolv.conf"] is RESOLV
    assert lay(definition, {"init:1": first, "runc:1": second})["etc/resolv.conf"].target == (
        "/run/resolvconf/resolv.conf"
    )


def test_init_images_that_disagree_about_a_directory_are_refused() -> None:
    definition = parse_definition({"init": ["alpine:1", "debian:1"]}, "x.yml")

    with pytest.raises(ImageRefusedError, match="cannot lay out lib/x: expected /lib to be a dir"):
        lay(definition, {"alpine:1": {"lib/x": FILE}, "debian:1": {"lib": LINK}})


def test_lists_of_installed_packages_are_joined() -> None:
    definition = parse_definition({"init": ["a:1", "b:1"]}, "x.yml")
    images: dict[str, Tree] = {
        name: {"lib/apk/db/installed": Node(kind=Kind.FILE, content=name.encode())}
        for name in ("a:1", "b:1")
    }

    assert lay(definition, images)["lib/apk/db/installed"].content == b"a:1\n\nb:1\n\n"


def test_a_volume_has_its_own_copy_or_begins_empty() -> None:
    definition = parse_definition(
        {
            "services": [{"name": "a", "image": "x:1"}],
            "volumes": [{"name": "full", "image": "x:1"}, {"name": "empty"}],
        },
        "x.yml",
    )

    tree = lay(definition, {"x:1": {"bin": FILE}})

    volumes = {path.removeprefix("containers/volumes/") for path in tree if "volumes" in path}
    assert volumes >= {"full/lower/bin", "full/tmp", "full/merged", "empty/lower", "empty/merged"}
    assert not any(path.startswith("empty/lower/") for path in volumes)
    assert tree["containers/services/a/lower/bin"] == FILE


def test_a_volume_that_is_an_image_layout_is_refused() -> None:
    definition = parse_definition({"volumes": [{"name": "v", "format": "oci"}]}, "x.yml")

    with pytest.raises(SettingsError, match=r"x\.yml: volumes\.0\.format: oci is not supported"):
        check_volumes(definition, "x.yml")


@pytest.mark.skipif(not LINUXKIT.exists(), reason="no image of LinuxKit's builder here")
def test_every_path_is_the_one_of_linuxkits_own_builder(tmp_path: Path) -> None:
    """Not compared: the time of what images bring, and the PAX records LINUXKIT.*.

    A squashfs keeps no such records.
    """
    config = ImageConfig(
        args=("/bin/svc", "-x"),
        env=("PATH=/bin",),
        cwd="/etc",
        label=Container.model_validate(
            {
                "capabilities": ["CAP_NET_ADMIN"],
                "binds": ["/dev:/dev", "/run:/run"],
                "pid": "host",
                "runtime": {"cgroups": ["svc"], "mkdir": ["/run/svc"]},
            }
        ),
    )
    program = Node(kind=Kind.FILE, content=b"#!/bin/sh\nsleep 1\n", mtime=1)
    image: Tree = {
        "bin": Node(kind=Kind.DIRECTORY, mtime=1),
        "bin/svc-hard": program,
        "bin/svc-sym": Node(kind=Kind.LINK, mode=0o777, target="svc", mtime=1),
        "bin/svc": program,
        "etc/resolv.conf": Node(kind=Kind.FILE, content=b"of the image", mtime=1),
    }
    definition = load_definition(LINUXKIT / "extension.yml")
    bundles = plan_bundles(definition, dict.fromkeys(definition.images, config), "x")
    files = lay_out_files(definition, tmp_path, "x")
    tree = lay_out(definition, bundles, dict.fromkeys(definition.images, image), files)

    with (tmp_path / "ours.tar").open("wb") as file:
        write_tar(tree, file)
    theirs = tmp_path / "theirs.tar"
    theirs.write_bytes(gzip.decompress((LINUXKIT / "extension.tar.gz").read_bytes()))

    assert tell(read_tar(tmp_path / "ours.tar")) == tell(read_tar(theirs))


def tell(tree: Tree) -> dict[str, object]:
    """What must be the same of every path, and which other names it has."""
    names = defaultdict(set)
    for path, node in tree.items():
        names[id(node)].add(path)
    return {
        path: (
            *(node.kind, oct(node.mode), node.uid, node.gid, node.target, node.device),
            *(read_content(node), names[id(node)], "/lower/bin" in path or node.mtime == EPOCH),
        )
        for path, node in tree.items()
    }
