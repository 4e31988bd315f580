from pathlib import Path
from typing import Any

import pytest

from extsloader.imagebuild.linuxkit.definition import load_definition, parse_definition
from extsloader.model.errors import SettingsError


def problems(*services: object, **top: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        parse_definition({"services": list(services)} | top, "pkgs.yml")
    return caught.value.problems


def service(**keys: Any) -> dict[str, Any]:
    return {"name": "a", "image": "a:1"} | keys


def test_unknown_keys_are_all_named_with_their_place_and_what_was_meant() -> None:
    found = problems(
        service(**{"bind.add": []}), service(runtime={"hooks": []}), kernel={"cmdlin": "quiet"}
    )

    known = "cgroups, mounts, mkdir, interfaces, bindNS, namespace"
    assert found == (
        "pkgs.yml: kernel.cmdlin: unknown key, expected cmdline?",
        "pkgs.yml: services.0.bind.add: unknown key, expected binds.add?",
        f"pkgs.yml: services.1.runtime.hooks: unknown key, expected one of {known}",
    )


def test_every_section_and_key_has_its_type() -> None:
    found = problems(
        service(readonly="yes", hostname=None, env="A=1"),
        {"image": "a:1"},
        "getty",
        init="init:1",
        files=[{"path": "a", "contents": "", "metadata": "xml"}],
        volumes=[{"name": "A"}],
    )

    assert found == (
        "pkgs.yml: init: expected a valid list, got 'init:1'",
        "pkgs.yml: services.0.env: expected a valid list, got 'A=1'",
        "pkgs.yml: services.0.readonly: expected a valid boolean, got 'yes'",
        "pkgs.yml: services.0.hostname: expected a value, got null",
        "pkgs.yml: services.1.name: expected a value, got none: the key is missing",
        "pkgs.yml: services.2: expected keys and values, got 'getty'",
        "pkgs.yml: files.0.metadata: expected '', 'yaml' or 'json', got 'xml'",
        "pkgs.yml: volumes.0.name: string should match pattern '^[a-z0-9_-]+$', got 'A'",
    )


@pytest.mark.parametrize("name", ["../evil", "", "a/b", "UPPER", "x" * 33, "a\n"])
def test_names_that_would_not_be_plain_directories_are_refused(name: str) -> None:
    assert "services.0.name" in problems(service(name=name))[0]


def test_a_boolean_is_no_number_and_a_large_id_is_refused() -> None:
    assert len(problems(service(uid=True, gid=2**31))) == 2


@pytest.mark.parametrize(
    "keys",
    [
        {"binds": ["/run"]},
        {"binds.add": ["/a:/b:ro:rshared"]},
        {"tmpfs": ["run"]},
        {"rlimits": ["nofile,100"]},
        {"rlimits": ["nofile,1,-1"]},
        {"rlimits": [f"nofile,1,{2**64}"]},
        {"rlimits": ["files,1,2"]},
        {"mounts": [{"destination": "/x"}]},
        {"mounts": [{"type": "tmpfs"}]},
        {"devices": [{"path": "/dev/x"}]},
    ],
)
def test_texts_and_items_that_have_parts_must_have_all_of_them(keys: dict[str, Any]) -> None:
    (problem,) = problems(service(**keys))

    assert problem.startswith(f"pkgs.yml: services.0.{next(iter(keys))}.0: ")


@pytest.mark.parametrize("names", [["KILL"], ["all", "CAP_KILL"], ["cap_kill"]])
def test_unknown_capabilities_are_refused(names: list[str]) -> None:
    (problem,) = problems(service(capabilities=names))
    assert problem.endswith(f"got {names[0]}")


@pytest.mark.parametrize(
    "keys",
    [
        {"path": "etc/../../x", "contents": ""},
        {"path": "a"},
        {"path": "a", "directory": True, "contents": ""},
        {"path": "a", "contents": "", "mode": "0999"},
        {"path": "", "contents": ""},
    ],
)
def test_files_need_a_path_inside_and_one_kind_of_content(keys: dict[str, Any]) -> None:
    (problem,) = problems(files=[keys])
    assert problem.startswith("pkgs.yml: files.0")


def test_a_service_or_a_volume_that_is_there_twice_is_named() -> None:
    assert problems(service(), service(), volumes=[{"name": "v"}, {"name": "v"}]) == (
        "pkgs.yml: services.1.name: expected a name of its own, got a twice",
        "pkgs.yml: volumes.1.name: expected a name of its own, got v twice",
    )


def test_what_runs_one_after_the_other_may_be_there_twice() -> None:
    assert len(parse_definition({"onboot": [service(), service()]}, "eve.yml").onboot) == 2


def test_names_of_users_are_those_of_containers_or_root() -> None:
    found = problems(
        service(uid="a", gid="root", additionalGids=[0, "b", "c"]),
        onboot=[service(name="b")],
        files=[{"path": "x", "contents": "", "uid": "nobody"}],
    )

    expected = "expected a number, root or the name of a container"
    assert found == (
        f"pkgs.yml: services.0.additionalGids.2: {expected}, got 'c'",
        f"pkgs.yml: files.0.uid: {expected}, got 'nobody'",
    )


def test_a_bind_of_a_volume_needs_the_volume_and_respects_that_it_is_read_only() -> None:
    found = problems(
        service(binds=["v:/v", "w:/w", "v:/x:ro"], **{"binds.add": ["none:/n"]}),
        volumes=[{"name": "v", "readonly": True}, {"name": "w"}],
    )

    assert [problem.split(": ")[1] for problem in found] == [
        "services.0.binds.0",
        "services.0.binds.add.0",
    ]


def test_problems_come_in_the_order_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "pkgs.yml"
    path.write_text(
        "services:\n  - name: a\n    image: a:1\n    uid: -1\n    foo: 1\n  - name: b\n"
    )

    with pytest.raises(SettingsError) as caught:
        load_definition(path)

    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"{path}:{line}" for line in (4, 5, 6)
    ]


def write(directory: Path, **texts: str) -> list[Path]:
    paths = [directory / f"{name}.yml" for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    return paths


def test_definitions_are_appended_and_the_later_kernel_replaces_what_it_names(
    tmp_path: Path,
) -> None:
    definition = load_definition(
        *write(
            tmp_path,
            a="kernel: {image: k:1, cmdline: quiet, ucode: u}\ninit: [a]\nvolumes: [{name: v}]\n",
            b="kernel: {image: k:2, cmdline: ''}\ninit: [b]\n",
            c="kernel: {tar: none}\nservices: [{name: s, image: c, binds: ['v:/v']}]\n",
        )
    )

    assert definition.images == ("k:2", "a", "b", "c")
    assert definition.kernel
    assert definition.kernel.model_dump() == {
        "image": "k:2", "cmdline": "quiet", "binary": "kernel", "tar": "none", "ucode": "u",
    }  # fmt: skip


def test_what_clashes_across_files_is_told_where_it_is(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        a="services:\n  - {name: x, image: a, uid: none}\n",
        b="services:\n  - {name: y, image: a}\n\n  - {name: x, image: a}\n",
    )

    with pytest.raises(SettingsError) as caught:
        load_definition(*paths)

    assert [problem.split(": ")[:2] for problem in caught.value.problems] == [
        [f"{paths[0]}:2", "services.0.uid"],
        [f"{paths[1]}:4", "services.1.name"],
    ]


def test_a_path_that_is_the_root_itself_is_refused() -> None:
    assert "below the root" in problems(files=[{"path": "/./", "directory": True}])[0]
