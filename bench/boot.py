"""Boot to ready: services from the pkgs image against the same ones in the bootstrap image.

It needs a build, `make live-bootstrap pkgs_rootfs`, and makes the disk without the split itself,
of both definitions.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIST = Path(os.environ.get("EXTST_DIST", "dist/amd64/current"))
DEFINITIONS = [Path(f"images/out/rootfs_{name}-kvm.yml") for name in ("bootstrap", "pkgs")]
RUNS = 3
DEADLINE = 300  # seconds
GOAL = 1.10
MKEXT = [sys.executable, "-m", "extsloader.imagebuild.main"]

SPLIT = re.compile(rb"agent: \w+ -> ready")
UNSPLIT = re.compile(rb"bootstrap: all services are started")
"""What the console says; without the agent nobody asks the services whether they are ready."""


def measure() -> list[str]:
    """Both in turn, so that the machine's moods meet both."""
    disk, pkgs = DIST / "live-bootstrap.qcow2", DIST / "installer/rootfs-pkgs.img"
    if missing := [str(path) for path in (disk, pkgs, *DEFINITIONS) if not path.exists()]:
        return [f"not measured, {missing[0]} is missing: make live-bootstrap pkgs_rootfs"]
    split, unsplit = [], []
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        whole = _make_unsplit(Path(folder))
        for _ in range(RUNS):
            split.append(_boot(SPLIT, str(disk), "--pkgs", str(pkgs), "--via", "virtio"))
            unsplit.append(_boot(UNSPLIT, str(whole)))
    ratio = statistics.median(split) / statistics.median(unsplit)
    return [
        f"services ready from the pkgs image: {_describe(split)}",
        f"services started from the bootstrap image: {_describe(unsplit)}; "
        f"the split costs a factor of {ratio:.2f} (goal: <= {GOAL:.2f})",
    ]


def _make_unsplit(out: Path) -> Path:
    options: list[Path | str] = ["--out", out, "--files", DIST / "installer", "--allow-newer"]
    argv = [*MKEXT, "bootstrap", *DEFINITIONS, *options]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return out / "live-bootstrap.qcow2"


def _boot(ready: re.Pattern[bytes], *words: str) -> float:
    """Seconds from the start of QEMU until a line of the console says it."""
    argv = [*MKEXT, "run", *words]
    started = time.perf_counter()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        signal.alarm(DEADLINE)  # a machine that hangs ends the benchmark
        if not any(ready.search(line) for line in machine.stdout or ()):
            raise RuntimeError(f"{' '.join(words)} ended before it was ready")
        took = time.perf_counter() - started
        signal.alarm(0)
        machine.terminate()
    return took


def _describe(times: list[float]) -> str:
    return (
        f"median {statistics.median(times):.1f} s after power on "
        f"({min(times):.1f} to {max(times):.1f}, {len(times)} runs)"
    )
