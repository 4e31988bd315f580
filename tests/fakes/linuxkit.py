"""The tar that LinuxKit's own builder made; it is not part of the project."""

import subprocess
from pathlib import Path

import pytest

TAR = Path(__file__).parents[2] / "../shared/data/linuxkit-image/extension.tar.gz"


def unpack(directory: Path) -> None:
    """Unpack it into a directory; skips the test where the tar is absent."""
    if not TAR.exists():
        pytest.skip("the LinuxKit tar is not there")
    directory.mkdir(exist_ok=True)
    command = ["tar", "--extract", f"--file={TAR}", f"--directory={directory}"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # it wonders at some headers
