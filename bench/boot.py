"""Boot to ready: services from the pkgs image against the same ones in the bootstrap image.

It takes disks that are built: `dist/amd64/current/live-bootstrap.qcow2` with its pkgs image, and a
disk without the split, whose definition is both definitions in one, from $EXTSLOADER_UNSPLIT.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

DIST = Path("dist/amd64/current")
RUNS = 3
DEADLINE = 300  # seconds
READY = {
    "split": re.compile(rb"agent: \w+ -> ready"),
    "unsplit": re.compile(rb"all services are started"),
}
GOAL = 1.10


def measure() -> list[str]:
    """Both kinds in turn, so that the machine's moods meet both."""
    pkgs, unsplit = DIST / "installer/rootfs-pkgs.img", os.environ.get("EXTSLOADER_UNSPLIT", "")
    split = [str(DIST / "live-bootstrap.qcow2"), "--pkgs", str(pkgs), "--via", "virtio"]
    if not unsplit:
        return ["not measured: $EXTSLOADER_UNSPLIT names no disk without the split"]
    times: dict[str, list[float]] = {"split": [], "unsplit": []}
    for _ in range(RUNS):
        times["split"].append(_boot(split, READY["split"]))
        times["unsplit"].append(_boot([unsplit], READY["unsplit"]))
    ours, theirs = (statistics.median(times[kind]) for kind in ("split", "unsplit"))
    return [
        f"{kind}: median {statistics.median(values):.1f} s "
        f"({min(values):.1f} to {max(values):.1f}, {RUNS} runs)"
        for kind, values in times.items()
    ] + [f"the split costs a factor of {ours / theirs:.2f} (goal: <= {GOAL:.2f})"]


def _boot(words: list[str], ready: re.Pattern[bytes]) -> float:
    """Seconds from the start of QEMU until a line of the console says it."""
    argv = [sys.executable, "-m", "extsloader.imagebuild.main", "run", *words]
    started = time.perf_counter()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        signal.alarm(DEADLINE)  # a machine that hangs ends the benchmark
        for line in machine.stdout or ():
            if ready.search(line):
                took = time.perf_counter() - started
                break
        else:
            raise RuntimeError(f"{' '.join(words)} ended before it was ready")
        signal.alarm(0)
        machine.terminate()
    return took
