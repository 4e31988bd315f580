import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.adapters.mounts import syscalls as sys
from extsloader.adapters.mounts.options import split
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ("defaults", 0),
        ("ro", sys.MS_RDONLY),
        ("nosuid,nodev,noexec", sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC),
        ("rbind,ro", sys.MS_BIND | sys.MS_REC | sys.MS_RDONLY),
        ("remount,noatime", sys.MS_REMOUNT | sys.MS_NOATIME),
        ("ro,rw", 0),
        ("rw,ro", sys.MS_RDONLY),
        ("sync,async", 0),
    ],
)
def test_known_words_become_flags_and_the_later_one_wins(options: str, flags: int) -> None:
    found = split(options.split(","))
    assert (found.flags, found.data, found.propagation) == (flags, "", ())


def test_a_flag_switched_off_by_name_is_told_apart_from_one_never_named() -> None:
    assert split(["rw", "dev"]).cleared == sys.MS_RDONLY | sys.MS_NODEV
    assert split(["rw", "ro"]).cleared == 0


def test_everything_unknown_is_for_the_file_system() -> None:
    found = split(["nodev", "lowerdir=/a:/b", "upperdir=/u", "size=64m"])
    assert found.data == "lowerdir=/a:/b,upperdir=/u,size=64m"


def test_propagation_needs_calls_of_its_own_in_the_order_given() -> None:
    found = split(["bind", "rslave", "shared"])
    assert found.flags == sys.MS_BIND
    assert found.propagation == (sys.MS_SLAVE | sys.MS_REC, sys.MS_SHARED)


def test_data_longer_than_a_page_is_refused_because_the_kernel_would_cut_it_off() -> None:
    split(["x" * 4095])
    with pytest.raises(MachineError, match="at most 4095 bytes, got 4096") as refused:
        split(["x" * 4096])
    assert refused.value.problem.code is Code.MOUNT


@given(st.lists(st.sampled_from(["ro", "rw", "nodev", "dev", "bind", "private", "size=1", "x"])))
def test_no_option_gets_lost_or_is_both_set_and_cleared(options: list[str]) -> None:
    found = split(options)
    assert found.flags & found.cleared == 0
    data = found.data.split(",") if found.data else []
    assert data == [word for word in options if word in ("size=1", "x")]
    assert len(found.propagation) == options.count("private")
