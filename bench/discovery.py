"""A burst of uevents: what each one costs the agent, and whether the last one counts."""

import tempfile
import time
from pathlib import Path

from bench.agent import running
from bench.images import make_image

EVENTS = 10_000
QUIET = 2.0  # seconds; a look may see the removal while older events still wait to be read


def measure() -> list[str]:
    """Events of a device that is there, and then it is not."""
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        image = make_image(Path(folder), 1)
        root = Path(folder, "root")
        root.mkdir()
        with running(root, image.parent / "keys") as agent:
            with agent.attached(image):
                agent.until(lambda status: status.state == "ready")
                before, started = _read_spent(agent.pid), time.perf_counter()
                _send(agent.device)
            agent.until(lambda status: not (status.image and status.image.source_present))
            seconds = time.perf_counter() - started
            time.sleep(QUIET)
            cost = _read_spent(agent.pid) - before
    return [
        f"{EVENTS} uevents and a removal in a burst: the removal is known after {seconds:.2f} s; "
        f"each event cost the agent {cost / EVENTS * 1e6:.0f} us of a core (goal: <= 150)"
    ]


def _send(device: str) -> None:
    """The kernel sends one for each write, before the write returns."""
    with Path("/sys/class/block", Path(device).name, "uevent").open("wb", 0) as file:
        file.writelines(b"change" for _ in range(EVENTS))


def _read_spent(pid: int) -> float:
    """Seconds of processor time of all threads, finer than clock ticks (sched-stats.rst)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text("ascii").split()[0]) for task in tasks) / 1e9
