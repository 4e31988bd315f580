"""An image as erofs: Linux 6.12 mounts it without a loop device, but it is larger."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.steps import name_whole
from extsloader.imagebuild.tools import as_root, run_tool
from extsloader.imagebuild.tree import Kind, Node, read_tar
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_UUID = "6d6b6578-7400-5000-8000-65726f667300"  # the same for all: nobody looks images up by it


def make_erofs(tar: Path, out: Path) -> None:
    """Make an erofs of a tar file. Raises MachineError.

    mkfs.erofs before 1.7 reads no tar file, so that the files are unpacked for it.
    """
    stage = f"make {name_whole(out)}"
    if os.geteuid():
        check_ownership(read_tar(tar), stage)
    with TemporaryDirectory(dir=out.parent, prefix=".erofs-") as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        unpack = ["tar", "-xp", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
        with tar.open("rb") as file:
            run_tool(as_root([*unpack, "-C", str(tree)]), stage, stdin=file)
        tree.chmod(0o755)
        how = ["-zlz4hc,9", "-C65536", "-T", str(EPOCH), "-U", _UUID, "--quiet"]
        run_tool(as_root(["mkfs.erofs", *how, str(out), str(tree)]), stage)


def check_ownership(tree: Mapping[str, Node], stage: str) -> None:
    """Raise MachineError for files that only root can unpack as they are."""
    devices = (Kind.CHARACTER, Kind.BLOCK)
    wrong = [p for p, node in tree.items() if node.uid or node.gid or node.kind in devices]
    if wrong:
        some = ", ".join(f"/{path}" for path in sorted(wrong)[:5])
        reason = f"expected files of root alone, got devices or files of others, such as {some}"
        raise MachineError(Code.IO, stage, reason, "run it as root, or make a squashfs")
