"""The filter of system calls, run by an interpreter of the few instructions that it has.

What the rest does is seen in a real process only: tests/integration/test_confinement.py.
"""

import errno
import struct

import pytest

from extsloader.verify.confinement import _AUDIT_ARCH, _REFUSED, filter_program

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000


def run(program: bytes, architecture: int, number: int) -> int:
    """Classic BPF (Documentation/networking/filter.rst): load, compare and skip, return."""
    data = struct.pack("=iI", number, architecture)
    steps = list(struct.iter_unpack("=HBBI", program))
    loaded, at = 0, 0
    while True:
        code, if_so, if_not, value = steps[at]
        at += 1
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif code == 0x15:
            at += if_so if loaded == value else if_not
        else:
            assert code == 0x06
            return int(value)


@pytest.mark.parametrize("column", range(2), ids=_AUDIT_ARCH)
def test_the_listed_calls_fail_and_all_others_go_on(column: int) -> None:
    architecture = list(_AUDIT_ARCH.values())[column]
    refused = {numbers[column] for numbers in _REFUSED.values()}
    program = filter_program(architecture, refused)
    assert len(refused) == len(_REFUSED)
    for number in range(600):
        expected = REFUSE if number in refused else ALLOW
        assert run(program, architecture, number) == expected


def test_calls_of_another_architecture_end_the_process() -> None:
    program = filter_program(_AUDIT_ARCH["x86_64"], [1])
    assert run(program, 0x40000003, 2) == KILL  # i386: the same numbers mean other calls
