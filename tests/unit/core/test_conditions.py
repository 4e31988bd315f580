"""Whether a service is meant for this device."""

import pytest

from extsloader.core.conditions import explain_unmet
from extsloader.model.machine import Machine
from extsloader.model.manifest import Conditions

DEVICE = Machine(arch="amd64", hypervisor="kvm", command_line=("quiet", "eve_debug=1"))
TPM = frozenset({"/dev/tpm0"})


@pytest.mark.parametrize(
    "wanted",
    [
        Conditions(),
        Conditions(paths=("/dev/tpm0",)),
        Conditions(hypervisors=("xen", "kvm")),
        Conditions(command_line=("eve_debug=1", "quiet")),
    ],
)
def test_a_device_that_is_as_wanted_gives_no_reason(wanted: Conditions) -> None:
    assert explain_unmet(wanted, DEVICE, TPM) == ""


def test_all_that_is_not_as_wanted_is_told() -> None:
    wanted = Conditions(
        paths=("/dev/tpm0", "/dev/nvidia0"), hypervisors=("xen", "k"), command_line=("debug",)
    )
    assert explain_unmet(wanted, DEVICE, TPM) == (
        "it is for hypervisor xen or k, this is kvm; there is no /dev/nvidia0 on this device; "
        "debug is not on the kernel's command line"
    )


def test_a_part_of_a_word_is_not_the_word() -> None:
    assert explain_unmet(Conditions(command_line=("eve_debug",)), DEVICE, TPM)
