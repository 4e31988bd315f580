"""EVE's changes to templates for hypervisors and platforms: programs of mikefarah's yq 4."""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryFile

from extsloader.imagebuild.tools import run_tool
from extsloader.model.errors import MachineError, SettingsError
from extsloader.model.reasons import Code

_VERSION = re.compile(r"mikefarah/yq.* version v?(\d+)\.")
_WANTED = 4
_HINT = "put mikefarah's yq, version 4 (one file, not Debian's package yq), into PATH"


def find_modifiers(directory: Path, hypervisor: str, platform: str) -> list[Path]:
    """The modifiers that there are, in the order in which they apply. Raises SettingsError."""
    if not directory.is_dir():
        raise SettingsError((f"cannot use the modifiers {directory}: expected a directory",))
    wanted = (
        directory / "hv" / f"{hypervisor}.yq",
        directory / "platform" / platform / f"{platform}.yq",
    )
    return [path for path in wanted if path.is_file()]


def modify(text: str, modifier: Path) -> str:
    """Apply one modifier. Raises MachineError."""
    stage = f"apply {modifier}"
    _check_yq(stage)
    with TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        return run_tool(["yq", "--from-file", str(modifier)], stage, stdin=file).decode()


def _check_yq(stage: str) -> None:
    """Debian's yq is another program with another language."""
    if not shutil.which("yq"):
        raise MachineError(Code.IO, stage, "yq is not installed", _HINT)
    said = run_tool(["yq", "--version"], stage, hint=_HINT).decode().strip()
    found = _VERSION.search(said)
    if found is None or int(found[1]) < _WANTED:
        problem = f"expected mikefarah's yq, version {_WANTED}, got {said}"
        raise MachineError(Code.IO, stage, problem, _HINT)
