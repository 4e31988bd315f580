import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from extsloader.imagebuild.linuxkit.container import Container
from extsloader.imagebuild.linuxkit.definition import parse_definition
from extsloader.imagebuild.linuxkit.layout import (
    Bundle,
    check_buildable,
    lay_out,
    plan_bundles,
    prepare_content,
)
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.imagebuild.tree import DIRECTORY, Kind, Node, read_content
from extsloader.model.errors import SettingsError

LINUXKIT_TAR = Path(__file__).parents[5] / "shared/data/linuxkit-image/extension.tar.gz"

FILE = Node(kind=Kind.FILE, content=b"#!")


def plan(*services: Mapping[str, Any], image: ImageConfig | None = None) -> tuple[Bundle, ...]:
    definition = parse_definition({"services": list(services)}, "pkgs.yml")
    images = dict.fromkeys((s["image"] for s in services), image or ImageConfig(args=("/svc",)))
    return plan_bundles(definition, images, "pkgs.yml")


def options(bundle: Bundle) -> list[str]:
    return list(json.loads(bundle.runtime)["mounts"][-1]["options"])


def test_an_image_is_unpacked_by_its_first_user_and_later_ones_point_there() -> None:
    first, second = plan({"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"})

    assert (first.content, first.empty) == ("lower", ("tmp", "rootfs"))
    assert (second.content, second.empty) == (None, ("tmp", "rootfs"))
    assert options(second)[0] == "lowerdir=/containers/services/a/lower"
    assert options(second)[1] == "upperdir=/containers/services/b/tmp/upper"


def test_a_readonly_service_is_bound_onto_itself_or_from_the_first_user() -> None:
    first, second = plan(
        {"name": "a", "image": "x:1", "readonly": True},
        {"name": "b", "image": "x:1", "readonly": True},
    )

    assert (first.content, first.empty) == ("rootfs", ())
    assert (second.content, second.empty) == (None, ("rootfs",))
    assert json.loads(second.runtime)["mounts"] == [
        {
            "destination": "/containers/services/b/rootfs",
            "source": "/containers/services/a/rootfs",
            "options": ["bind"],
        }
    ]


def test_a_volume_is_refused_because_nothing_would_set_it_up() -> None:
    image = ImageConfig(label=Container(binds=["vol:/vol"]))
    with pytest.raises(SettingsError, match=r"services\.a\.binds: volumes are not supported"):
        plan({"name": "a", "image": "x:1"}, image=image)


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


def test_a_user_may_be_named_after_a_container() -> None:
    _, second = plan(
        {"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1", "uid": "b", "gid": "a"}
    )

    assert json.loads(second.config)["process"]["user"] == {"uid": 101, "gid": 100}


def test_the_content_of_an_image_is_cleaned_up_as_linuxkit_does() -> None:
    found = prepare_content(
        {
            ".dockerenv": FILE,
            "dev/console": FILE,
            "etc/hosts": FILE,
            "etc/hostname": FILE,
            "s": FILE,
        }
    )

    assert set(found) == {
        *("dev", "dev/pts", "dev/shm", "etc", "etc/hosts", "etc/mtab", "etc/resolv.conf"),
        *("proc", "sys", "s"),
    }
    assert read_content(found["etc/hosts"]).startswith(b"127.0.0.1")


@pytest.mark.skipif(not LINUXKIT_TAR.exists(), reason="no image of LinuxKit's builder here")
def test_the_layout_is_the_one_of_linuxkits_own_builder() -> None:
    image = ImageConfig(
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
    bundles = plan(
        {
            "name": "zeta",
            "image": "svc-a:1",
            "oomScoreAdj": -999,
            "cgroupsPath": "/eve/services/zeta",
        },
        {"name": "alpha", "image": "svc-a:1", "readonly": True, "rlimits": ["nofile,100,200"]},
        {
            "name": "beta",
            "image": "svc-b:1",
            "capabilities.add": ["CAP_SYS_ADMIN"],
            "runtime": {
                "mounts": [
                    {
                        "type": "tmpfs",
                        "source": "tmpfs",
                        "destination": "/run/beta",
                        "options": ["size=1m"],
                    }
                ]
            },
        },
        image=image,
    )
    tree = lay_out(bundles, {"svc-a:1": {"bin": DIRECTORY}, "svc-b:1": {}})

    ours = {path: read_content(node) for path, node in tree.items() if node.content}
    # In LinuxKit's image an onboot container had unpacked svc-b before, and alpha has a volume.
    beta = "containers/services/beta/runtime.json"
    ours[beta] = ours[beta].replace(b"/services/beta/lower", b"/onboot/000-setup/lower")
    theirs, paths = _read_linuxkit_tar()
    theirs = {
        path: re.sub(
            rb',\n {8}\{\n {12}"destination": "/vol".*?\n {8}\}', b"", text, flags=re.DOTALL
        )
        for path, text in theirs.items()
    }
    assert {path: ours.pop(path) for path in theirs} == theirs
    assert all(path.startswith("containers/services/beta/lower/") for path in ours)
    made = {path for path in tree if not path.startswith("containers/services/beta/lower")}
    assert made - {"containers/services/zeta/lower/bin"} <= paths


def _read_linuxkit_tar() -> tuple[dict[str, bytes], set[str]]:
    with tarfile.open(LINUXKIT_TAR) as tar:
        files = {m.name: tar.extractfile(m) for m in tar.getmembers() if m.isreg()}
        bundles = {
            name: file.read()
            for name, file in files.items()
            if file and re.fullmatch(r"containers/services/\w+/(\w+\.json|lower/etc/.*)", name)
        }
        return bundles, set(tar.getnames())
