import os
from pathlib import Path

import pytest

from extsloader.adapters.mounts.bundles import MOST, find_services, read_bundle
from extsloader.model.errors import MachineError
from extsloader.model.ids import RESERVED, ServiceName
from extsloader.model.manifest import Service
from extsloader.model.reasons import Code

SERVICE = Service(name=ServiceName("web"), bundle="containers/services/web")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "containers/services/web"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"é": 1}')
    return directory


def refusal(tmp_path: Path, service: Service = SERVICE) -> str:
    with pytest.raises(MachineError) as refused:
        read_bundle(str(tmp_path), service)
    assert refused.value.problem.code is Code.BUNDLE
    return refused.value.problem.message


def test_runtime_json_may_be_missing(tmp_path: Path, bundle: Path) -> None:
    found = read_bundle(str(tmp_path), SERVICE)
    assert (found.config, found.runtime) == ('{"é": 1}', "")
    (bundle / "runtime.json").write_text("{}")
    assert read_bundle(str(tmp_path), SERVICE).runtime == "{}"


def test_config_json_may_not_be_missing(tmp_path: Path, bundle: Path) -> None:
    (bundle / "config.json").unlink()
    assert refusal(tmp_path) == (
        "cannot read containers/services/web/config.json: there is no such file in the image"
    )


@pytest.mark.parametrize("target", ["/etc/hostname", "other.json", "/proc/self/environ"])
def test_a_symbolic_link_is_not_followed_even_within_the_image(
    tmp_path: Path, bundle: Path, target: str
) -> None:
    (bundle / "other.json").write_text("{}")
    (bundle / "config.json").unlink()
    (bundle / "config.json").symlink_to(target)
    assert "a symbolic link is in the way" in refusal(tmp_path)


def test_a_linked_bundle_directory_is_not_followed(tmp_path: Path, bundle: Path) -> None:
    bundle.rename(tmp_path / "elsewhere")
    bundle.symlink_to(tmp_path / "elsewhere")
    assert "a symbolic link is in the way" in refusal(tmp_path)


@pytest.mark.parametrize("path", ["..", "/", "containers/../.."])
def test_a_path_that_leads_out_of_the_image_is_refused(
    tmp_path: Path, bundle: Path, path: str
) -> None:
    (bundle / "config.json").unlink()
    service = Service(name=ServiceName("web"), bundle=path)
    assert "the path leads out" in refusal(tmp_path, service)


def test_a_fifo_is_refused_at_once(tmp_path: Path, bundle: Path) -> None:
    (bundle / "config.json").unlink()
    os.mkfifo(bundle / "config.json")
    assert "expected a regular file" in refusal(tmp_path)


def test_a_directory_is_refused(tmp_path: Path, bundle: Path) -> None:
    (bundle / "runtime.json").mkdir()
    assert "expected a regular file" in refusal(tmp_path)


def test_size_is_limited(tmp_path: Path, bundle: Path) -> None:
    (bundle / "config.json").write_bytes(b" " * MOST)
    read_bundle(str(tmp_path), SERVICE)
    (bundle / "config.json").write_bytes(b" " * (MOST + 1))
    assert f"expected at most {MOST} bytes, got {MOST + 1}" in refusal(tmp_path)


def test_text_must_be_utf8(tmp_path: Path, bundle: Path) -> None:
    (bundle / "config.json").write_bytes("{}".encode("utf-16"))
    assert "expected UTF-8, got byte 0 that is not" in refusal(tmp_path)


def unlisted(tmp_path: Path) -> str:
    with pytest.raises(MachineError) as refused:
        find_services(str(tmp_path))
    assert refused.value.problem.code is Code.BUNDLE
    return refused.value.problem.message


def test_the_services_that_lie_in_an_image_are_found_with_defaults(
    tmp_path: Path, bundle: Path
) -> None:
    (bundle.parent / "api").mkdir()
    api = Service(name=ServiceName("api"), bundle="containers/services/api")
    assert find_services(str(tmp_path)) == (api, SERVICE)


@pytest.mark.parametrize("name", ["Web", "a_b", "-a", "a" * 33, "a\n", "é", *sorted(RESERVED)])
def test_a_name_that_no_service_can_have_is_told(tmp_path: Path, bundle: Path, name: str) -> None:
    (bundle.parent / name).mkdir()
    assert unlisted(tmp_path).endswith(f"{name!a} cannot be the name of a service")


def test_none_too_many_or_a_link_are_told(tmp_path: Path) -> None:
    assert "no such file" in unlisted(tmp_path)
    services = tmp_path / "containers/services"
    services.mkdir(parents=True)
    assert "1 to 64 services expected, got 0" in unlisted(tmp_path)
    for number in range(65):
        (services / f"s{number}").mkdir()
    assert "1 to 64 services expected, got 65" in unlisted(tmp_path)
    services.rename(tmp_path / "elsewhere")
    services.symlink_to(tmp_path / "elsewhere")
    unlisted(tmp_path)
