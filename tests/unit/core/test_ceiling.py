"""What a service may ask for under each profile."""

import json

import pytest

from extsloader.core.ceiling import find_profile
from extsloader.model.manifest import Profile
from extsloader.model.settings import Ceiling, Settings
from tests.fakes import builders
from tests.fakes.bundles import (
    DEFAULT,
    MACHINE,
    MODEST,
    bind,
    good,
    linux,
    plan,
    refused,
)

STRICT = Settings(ceiling=Ceiling(profile=Profile.STRICT))


def test_everything_is_named_at_once() -> None:
    asked = MODEST | bind("/") | linux(sysctl={"a": "b"}, rootfsPropagation="shared")
    message = refused(asked, settings=DEFAULT).message
    assert message.endswith("bind of '/', writable; sysctl 'a'; root propagation 'shared'")


def test_runtime_json_makes_no_directory_on_the_host() -> None:
    message = refused(MODEST, {"mkdir": ["/persist/x"]}, settings=DEFAULT).message
    assert message.endswith("directory on the host at '/persist/x'")
    good(MODEST, {"mkdir": ["x"]}, settings=DEFAULT)


def test_what_linuxkit_gives_everybody_is_admitted() -> None:
    asked = MODEST | {
        "mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/dev", "type": "tmpfs"},
            {"destination": "/sys", "type": "sysfs", "options": ["rw"]},
            {"destination": "/v", "source": "/containers/volumes/v/merged", "options": ["bind"]},
            {"destination": "/etc/hosts", "source": "/etc/hosts", "options": ["bind", "ro"]},
        ]
    }
    mounts = json.loads(good(asked, settings=DEFAULT).spec)["mounts"]
    assert mounts[2]["options"] == ["ro"]  # root owns the files of sysfs
    assert mounts[3]["options"] == ["bind", "nosuid", "nodev"]


def test_strict_shares_nothing_with_the_host() -> None:
    message = refused(MODEST, settings=STRICT).message
    assert message.endswith("network namespace of the host; ipc namespace of the host; "
                            "uts namespace of the host")  # fmt: skip


def test_a_manifest_may_lower_the_profile_and_never_raise_it() -> None:
    asked = MODEST | bind("/")
    assert "beyond profile default" in refused(asked, profile=Profile.DEFAULT).message
    problem = plan(asked, settings=DEFAULT, profile=Profile.TRUSTED)
    assert "beyond profile default" in str(problem)


def test_a_machine_without_capabilities_changes_nothing() -> None:
    good(MODEST, machine=MACHINE, settings=DEFAULT)


@pytest.mark.parametrize(
    ("name", "asked", "granted"),
    [
        ("web", None, Profile.DEFAULT),
        ("wwan", None, Profile.TRUSTED),
        ("wwan", Profile.STRICT, Profile.STRICT),
        ("wwan", Profile.DEFAULT, Profile.DEFAULT),
        ("guest-1", Profile.TRUSTED, Profile.STRICT),
        ("guest-trusted", None, Profile.STRICT),
    ],
)
def test_the_device_may_name_services_and_of_two_lists_the_lower_counts(
    name: str, asked: Profile | None, granted: Profile
) -> None:
    ceiling = Ceiling(strict=("guest-*",), trusted=("wwan", "*-trusted"))
    assert find_profile(ceiling, builders.service(name, profile=asked)) is granted


def test_what_is_named_gets_what_the_others_do_not() -> None:
    asked = MODEST | bind("/")
    named = Settings(ceiling=Ceiling(trusted=(good(MODEST).service,)))
    good(asked, settings=named)
    assert "in ceiling.trusted" in refused(asked, settings=DEFAULT).hint
