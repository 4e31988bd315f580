"""Boot to ready: services from the pkgs image against the same ones in the bootstrap image.

It needs a build, `make live-bootstrap pkgs_rootfs`, and makes two disks itself: one with the
services in it and one without, both with a unit that asks until the last service answers.
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
BOOTSTRAP, PKGS = (Path(f"images/out/rootfs_{name}-kvm.yml") for name in ("bootstrap", "pkgs"))
PROBE = Path(__file__).with_name("boot_probe.yml")
RUNS = 3
DEADLINE = 300  # seconds
GOAL = 1.10
MKEXT = [sys.executable, "-m", "extsloader.imagebuild.main"]

READY = re.compile(rb"bench: telemetry is served")
"""What the console says when the last service of the chain has what the others made."""


def measure() -> list[str]:
    """Both in turn, so that the machine's moods meet both."""
    pkgs = DIST / "installer/rootfs-pkgs.img"
    if missing := [str(path) for path in (pkgs, BOOTSTRAP, PKGS) if not path.exists()]:
        return [f"not measured, {missing[0]} is missing: make live-bootstrap pkgs_rootfs"]
    split, whole = [], []
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        small = _make_disk(Path(folder, "small"), BOOTSTRAP, PROBE)
        large = _make_disk(Path(folder, "large"), BOOTSTRAP, PKGS, PROBE)
        for _ in range(RUNS):
            split.append(_boot(str(small), "--pkgs", str(pkgs), "--via", "virtio"))
            whole.append(_boot(str(large)))
    ratio = statistics.median(split) / statistics.median(whole)
    return [
        f"services of the pkgs image: {_describe(split)}",
        f"services in the bootstrap image: {_describe(whole)}; "
        f"the split costs a factor of {ratio:.2f} (goal: <= {GOAL:.2f})",
    ]


def _make_disk(out: Path, *definitions: Path) -> Path:
    options: list[Path | str] = ["--out", out, "--files", DIST / "installer", "--allow-newer"]
    argv = [*MKEXT, "bootstrap", *definitions, *options]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return out / "live-bootstrap.qcow2"


def _boot(*words: str) -> float:
    """Seconds from the start of QEMU until a line of the console says it."""
    argv = [*MKEXT, "run", *words]
    started = time.perf_counter()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        signal.alarm(DEADLINE)  # a machine that hangs ends the benchmark
        if not any(READY.search(line) for line in machine.stdout or ()):
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
