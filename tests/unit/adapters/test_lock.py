"""One agent for one run directory, whatever lies in the lock's place."""

import os
from pathlib import Path

import pytest

from extsloader.adapters.lock import take_lock
from extsloader.model.errors import MachineError


def test_the_second_agent_is_told_who_is_first(tmp_path: Path) -> None:
    first = take_lock(f"{tmp_path}/run")
    with pytest.raises(MachineError, match="E_BUSY: cannot start a second agent: one runs already"):
        take_lock(f"{tmp_path}/run")
    os.close(first)
    os.close(take_lock(f"{tmp_path}/run"))
