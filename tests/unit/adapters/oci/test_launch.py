"""Starting conmon where the device is short of something."""

import errno
import os

import pytest

from extsloader.adapters.oci.launch import launched
from tests.fakes.images import names


def test_without_a_free_descriptor_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = names("/proc/self/fd")
    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match="Too many open files"), launched(["/bin/true"]):
        pytest.fail("nothing was started")
    assert names("/proc/self/fd") == before
