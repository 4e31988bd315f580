"""Which integrity a device gets from what it is told and what it has."""

import pytest

from extsloader.core.integrity import explain_integrity, name_integrity
from extsloader.model.machine import Machine
from extsloader.model.settings import Settings

NONE = "this kernel has no dm-verity"


@pytest.mark.parametrize(
    ("asked", "no_verity", "used", "why"),
    [
        ("auto", "", "verity", "this device has dm-verity"),
        ("auto", NONE, "store", NONE),
        ("store", "", "store", "configured"),
        ("store", NONE, "store", "configured"),
        ("verity", "", "verity", "configured; this device has dm-verity"),
        ("verity", NONE, "verity", f"configured; {NONE}"),
    ],
)
def test_only_auto_looks_at_what_the_device_has(
    asked: str, no_verity: str, used: str, why: str
) -> None:
    settings, machine = Settings(integrity=asked), Machine(arch="amd64", no_verity=no_verity)
    assert name_integrity(settings, machine) == used
    assert explain_integrity(settings, machine) == why


def test_a_device_that_nobody_looked_at_has_no_verity() -> None:
    assert name_integrity(Settings(), Machine(arch="amd64")) == "store"
