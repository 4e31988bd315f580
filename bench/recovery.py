"""After kill -9 of the agent with 50 services: how soon is the next one in charge of them all."""

import statistics
import tempfile
import time
from pathlib import Path

from bench.agent import Agent, running
from bench.images import make_image
from extsloader.ctl.client import Client, UnreachableError
from extsloader.model.status import Change, StatusSnapshot

SERVICES = 50
RUNS = 4  # after one more crash the agent is in safe mode (`core.safe_mode`), and never ready
QUIET = 3.0  # seconds, more than it takes: nobody asks meanwhile
JSON = (("Accept", "application/json"),)


def measure() -> list[str]:
    """From the start of the next agent's process, and from its mount, to the last adoption."""
    whole, adopting = [], []
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        image = make_image(Path(folder), SERVICES)
        root = Path(folder, "root")
        root.mkdir()
        with running(root, image.parent / "keys") as agent, agent.attached(image):
            time.sleep(QUIET)
            before = pids(agent.until(lambda status: status.state == "ready"))
            for _ in range(RUNS):
                one, other = _recover(agent, before)
                whole.append(one)
                adopting.append(other)
    return [
        f"{SERVICES} services after kill -9: median {statistics.median(whole):.2f} s "
        f"({min(whole):.2f} to {max(whole):.2f}) from the next agent's start, of which "
        f"{statistics.median(adopting):.2f} s after the image was mounted (goal: <= 0.5 s)",
    ]


def pids(status: StatusSnapshot) -> dict[str, int | None]:
    """Who runs."""
    return {service.name: service.pid for service in status.services}


def _recover(agent: Agent, before: dict[str, int | None]) -> tuple[float, float]:
    started = time.clock_gettime(time.CLOCK_REALTIME)
    agent.die_and_return()
    time.sleep(QUIET)
    _wait(agent.client)
    if pids(agent.until(lambda status: status.state == "ready")) != before:
        raise RuntimeError("services did not survive")
    changes = agent.client.decode(agent.client.get("/v1/events?since=0", JSON), tuple[Change, ...])
    recent = [change for change in changes if change.wall >= started]
    ready = max(c.wall for c in recent if c.subject == "agent" and c.new == "ready")
    mounted = max(c.wall for c in recent if c.new == "mounted")
    return ready - started, ready - mounted


def _wait(client: Client) -> None:
    for _ in range(200):
        try:
            client.get("/v1/healthz")
        except UnreachableError:
            time.sleep(0.05)
        else:
            return
