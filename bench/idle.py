"""What the agent costs while nothing happens: memory, and how often it wakes up."""

import re
import tempfile
import time
from pathlib import Path

from bench.agent import running
from bench.images import make_image

SERVICES = 10
QUIET = 10.0  # seconds


def measure() -> list[str]:
    """Memory and wake-ups of the agent with ten idle services."""
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        image = make_image(Path(folder), SERVICES)
        root = Path(folder, "root")
        root.mkdir()
        with running(root, image.parent / "keys") as agent, agent.attached(image):
            agent.until(lambda status: status.state == "ready")
            time.sleep(2)  # the last report is read, the last helper collected
            before, ticks = _switches(agent.pid), read_ticks(agent.pid)
            time.sleep(QUIET)
            after, later = _switches(agent.pid), read_ticks(agent.pid)
            memory = _read(agent.pid, "smaps_rollup")
            rss, pss = (_find(key, memory) for key in ("Rss", "Pss"))
            return [
                f"agent with {SERVICES} idle services: RSS {rss / 1024:.1f} MiB, "
                f"PSS {pss / 1024:.1f} MiB (goal: RSS <= 28 MB = 26.7 MiB)",
                f"in {QUIET:.0f} s of quiet: {after - before} context switches, "
                f"{(later - ticks) * 10} ms of processor time (goal: none that nothing asked for)",
            ]


def _switches(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    text = "".join((task / "status").read_text(encoding="ascii") for task in tasks)
    return sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", text)))


def read_ticks(pid: int) -> int:
    """Processor time of the process so far, without its children's, in clock ticks."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _find(key: str, rollup: str) -> int:
    """A figure of smaps_rollup in KiB."""
    return int(re.findall(rf"^{key}:\s+(\d+)", rollup, re.MULTILINE)[0])


def _read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="ascii")
