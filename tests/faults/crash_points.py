"""Crash points: an agent is killed, or told an error, at one call of one story, and started again.

Whatever the call was, the story has to end as it does without any fault, with nothing twice and
nothing left over. `python -m tests.faults.crash_points --help` goes through all of them.
"""

import argparse
import os
import random
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.model.status import StatusSnapshot
from tests.fakes import strace
from tests.fakes.real_agent import RealAgent, kill_all
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service, write_keys

SOON = {
    "timeouts__probation": 0.1,
    "timeouts__retry_base": 0.05,
    "timeouts__retry_cap": 0.2,
}
AT_ONCE = {"base": 0.1, "cap": 0.1, "jitter": 0.0}
WITH_FAULT = 6.0  # seconds until a story with an error in it is ended by a kill
RECOVERED_WITHIN = 30.0  # seconds, invariant I10
Summary = tuple[object, ...]


class Images:
    """What the stories plug in."""

    def __init__(self, directory: Path) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.good, self.newer, self.bad, self.crashing = (
            directory / f"{name}.img" for name in ("good", "newer", "bad", "crashing")
        )
        base = service("base", essential=True, restart=AT_ONCE)
        api = service("api", requires=["base"], restart=AT_ONCE)
        crash = service("crash", "exit 7", restart=AT_ONCE | {"limit": 2})
        other = service("base", essential=True, restart=AT_ONCE, resources={"memory": 32 << 20})
        make_image(self.good, self.key, base, api)
        make_image(self.newer, self.key, other, sequence=2)
        make_image(self.crashing, self.key, base, crash)
        make_image(self.bad, Ed25519PrivateKey.generate(), base, sequence=3)


class Stage:
    """One agent, one stick, and the images."""

    def __init__(self, root: Path, images: Images) -> None:
        self.images = images
        self.stick = LoopDevice()
        self.agent = RealAgent(root, self.stick.node, **SOON)
        self.trace = root / "trace"
        write_keys(root / "etc/extsloader/keys", [images.key])

    def settle(self) -> None:
        """An agent that is content with its image, and all that follows from it is written."""
        self.agent.until(lambda s: s.state == "ready" and s.floors)

    def install(self, image: Path) -> None:
        self.agent.start()
        self.stick.plug_in(image)
        self.settle()

    def pull_out(self) -> None:
        self.stick.pull_out()
        self.agent.until_gone(self.stick.node)

    def summary(self, status: StatusSnapshot) -> Summary:
        """What has to be the same in the end, with and without a fault."""
        return (
            status.state,
            status.image and status.image.sequence,
            [(s.name, s.state) for s in status.services],
            [(c.verdict, c.code) for c in status.candidates if c.device == self.stick.node][-1:]
            if self.stick.is_plugged_in()
            else [],
            status.floors,
            status.flags,
            self.agent.stored(),
        )

    def oddities(self) -> list[str]:
        """Whatever contradicts the invariants while the agent is settled."""
        agent, status = self.agent, self.agent.status()
        live = [str(s.name) for s in status.services if s.pid]
        known = [s for s in status.services if s.pid or s.state == "parked"]  # its data is kept
        conmons = [line for line in agent.processes().values() if "conmon" in line.split()[0]]
        mounts = agent.mounts()
        groups = sorted({p.name for group in agent.groups() for p in group.iterdir() if p.is_dir()})
        records = sorted(p.name.split(".")[0] for p in agent.run.glob("containers/*.*"))
        quarantined = agent.root.glob("persist/extsloader/quarantine/*")
        odd = [
            *(f"mounted {n} times: {p}" for p, n in Counter(mounts).items() if n > 1),
            *_differ("mounts", True, 1 + 2 * len(live) <= len(mounts) <= 1 + 2 * len(known)),
            *_differ("loop devices", 1, len(agent.loops())),
            *_differ("conmon processes", len(live), len(conmons)),
            *_differ("control groups", sorted(live), groups),
            *_differ("container records", sorted(live), records),
            *(f"quarantined {p}" for p in quarantined),
        ]
        return [*odd, *_complaints(agent)]


def _differ(what: str, expected: object, got: object) -> list[str]:
    return [] if expected == got else [f"{what}: {expected} expected, {got} got"]


def _complaints(agent: RealAgent) -> list[str]:
    return re.findall(r".*(?:Traceback|surprise|event ignored).*", agent.log())


@dataclass(frozen=True, slots=True)
class Story:
    """`before` prepares; then the agent is started below strace, and `during` happens to it."""

    name: str
    before: Callable[[Stage], object]
    during: Callable[[Stage], object] = Stage.settle
    after: Callable[[Stage], object] = lambda _: None  # done again once the agent is back
    helper: bool = False  # the process that verifies is a part of it


def _killed(stage: Stage, image: Path) -> None:
    """Services run, and wait for an agent to adopt them."""
    stage.install(image)
    stage.agent.kill()


def _installed(stage: Stage) -> None:
    """An image is in the store and nothing runs."""
    stage.install(stage.images.good)
    stage.agent.stop()
    stage.stick.pull_out()


def _another_stick(stage: Stage, image: Path) -> None:
    _killed(stage, stage.images.good)
    stage.stick.pull_out()
    stage.stick.plug_in(image)


def _leftovers(stage: Stage) -> None:
    """Mounts, groups and records of services that nobody watched over and that are dead."""
    _killed(stage, stage.images.good)
    kill_all(stage.agent.processes())


def _pause(stage: Stage) -> None:
    stage.settle()
    stage.agent.client.order("/v1/services/api/pause", wait=5)
    stage.agent.until(lambda s: any(service.state == "paused" for service in s.services))


def _stop(stage: Stage) -> None:
    stage.settle()
    stage.agent.stop()


def _crash(stage: Stage) -> None:
    stage.agent.until(lambda s: s.floors and any(x.state == "parked" for x in s.services))


def _upgrade(stage: Stage) -> None:
    stage.agent.until(lambda s: s.state == "ready" and [f.sequence for f in s.floors] == [2])


def _refuse(stage: Stage) -> None:
    stage.agent.until_verdict(stage.stick.node, "refused")
    stage.settle()


def _pull(stage: Stage) -> None:
    stage.settle()
    if stage.stick.is_plugged_in():
        stage.pull_out()


STORIES = (
    Story("first-install", lambda s: s.stick.plug_in(s.images.good), helper=True),
    Story("upgrade", lambda s: _another_stick(s, s.images.newer), _upgrade, helper=True),
    Story("refused-upgrade", lambda s: _another_stick(s, s.images.bad), _refuse),
    Story("stop", lambda s: _killed(s, s.images.good), _stop, _stop),
    Story("crash", lambda s: s.stick.plug_in(s.images.crashing), _crash),
    Story("pull", lambda s: _killed(s, s.images.good), _pull, _pull),
    Story("pause", lambda s: _killed(s, s.images.good), _pause, _pause),
    Story("cold-boot", _installed),
    Story("leftovers", _leftovers),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One run."""

    story: Story
    call: strace.Call
    mode: str

    def __str__(self) -> str:
        return f"{self.story.name}: {self.mode} {self.call}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a point; `hit` says whether the call was made at all in that run."""

    point: Point
    hit: bool
    violations: tuple[str, ...]
    log: str = ""


@contextmanager
def staged(images: Images) -> Iterator[Stage]:
    root = Path(tempfile.mkdtemp(prefix=f"extst-{secrets.token_hex(3)}-"))
    stage = Stage(root, images)
    try:
        yield stage
    finally:
        strace.let_go(stage.agent)
        try:
            stage.agent.sweep()
        finally:
            stage.stick.remove()
            shutil.rmtree(root, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Clean:
    """A story without a fault: how it ends, and every call that one can strike."""

    story: Story
    end: Summary
    calls: list[strace.Call]


def tell(story: Story, images: Images) -> Clean:
    """Run the story below strace and look at its end. Raises AssertionError."""
    calls: list[strace.Call] = []
    end: Summary = ()
    for helper in (False, True)[: 1 + story.helper]:
        with staged(images) as stage:
            story.before(stage)
            stage.agent.start(*strace.command(stage.agent, stage.trace, helper=helper))
            story.during(stage)
            strace.let_go(stage.agent)
            calls += strace.list_calls(stage.trace, stage.agent, helper=helper)
            end, odd = _end(stage)
            assert not odd, (story.name, odd, stage.agent.log())
    assert calls, f"{story.name}: strace saw nothing"
    return Clean(story, end, calls)


def _end(stage: Stage, wanted: Summary | None = None) -> tuple[Summary, list[str]]:
    """How it looks while it runs, or stopped, and then after a stop."""
    agent = stage.agent
    if not agent.process:
        return (), [*agent.leftovers(), *_complaints(agent)]
    end = stage.summary(agent.status())
    if wanted is not None and end != wanted:
        end = _reach(stage, wanted)
    odd = [*_differ("end", wanted or end, end), *stage.oddities()]
    code = agent.stop()
    return end, [*odd, *_differ("exit code", 0, code), *agent.leftovers()]


def _reach(stage: Stage, wanted: Summary) -> Summary:
    with suppress(AssertionError):
        stage.agent.until(lambda s: stage.summary(s) == wanted, RECOVERED_WITHIN)
    return stage.summary(stage.agent.status())


def strike(point: Point, clean: Clean, images: Images) -> Outcome:
    """Run the story with the fault, start the agent again, and compare."""
    story = point.story
    with staged(images) as stage:
        agent = stage.agent
        story.before(stage)
        with ended(stage), suppress(Exception):  # of somebody whose agent is killed
            agent.start(*strace.command(agent, stage.trace, point.call, point.mode,
                                        helper=point.call.helper))  # fmt: skip
            story.during(stage)
        hit = strace.was_tampered_with(stage.trace)
        strace.let_go(agent)
        if agent.process:
            agent.kill()
        try:
            agent.start()
            story.after(stage)
            _, odd = _end(stage, clean.end)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            odd = [f"{type(error).__name__}: {error}"]
        return Outcome(point, hit, tuple(odd), agent.log() if odd else "")


@contextmanager
def ended(stage: Stage) -> Iterator[None]:
    """Kill whom strace holds, and the agent when a fault makes the story too long."""
    over = threading.Event()
    watch = threading.Thread(target=_end_in_time, args=(stage, over))
    watch.start()
    yield
    over.set()
    watch.join()


def _end_in_time(stage: Stage, over: threading.Event) -> None:
    deadline = time.monotonic() + WITH_FAULT
    while not over.wait(0.02):
        victim = strace.held(stage.trace) if stage.trace.exists() else None
        late = time.monotonic() > deadline
        if late and stage.agent.process:
            victim = stage.agent.pid
        if victim:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if late:
            return


def tell_all(images: Images, stories: Iterable[Story] = STORIES) -> list[Clean]:
    """Every story without a fault."""
    return [tell(story, images) for story in stories]


def draw(clean: Clean, dice: random.Random) -> list[Point]:
    """All points of a story in a random order."""
    points = [Point(clean.story, call, how) for call in clean.calls for how in strace.modes(call)]
    dice.shuffle(points)
    return points


def sweep(cleans: Sequence[Clean], images: Images, seed: int, seconds: float,
          jobs: int = 2) -> Iterator[Outcome]:  # fmt: skip
    """Strike at points of all stories in turn, until the time is over or there is none left."""
    dice = random.Random(seed)
    turns = zip_longest(*(draw(clean, dice) for clean in cleans))
    points = [point for turn in turns for point in turn if point]
    ends = {clean.story: clean for clean in cleans}
    deadline = time.monotonic() + seconds

    def work(point: Point) -> Outcome | None:
        if time.monotonic() > deadline:
            return None
        try:
            return strike(point, ends[point.story], images)
        except Exception as error:  # noqa: BLE001 - one story that cannot be cleaned up is one
            return Outcome(point, hit=True, violations=(f"{type(error).__name__}: {error}",))

    with ThreadPoolExecutor(jobs) as pool:
        yield from (outcome for outcome in pool.map(work, points) if outcome)


def main() -> int:
    """Exit code 1 after a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after them")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--story", choices=[story.name for story in STORIES], action="append")
    options = parser.parse_args()
    stories = [s for s in STORIES if not options.story or s.name in options.story]
    with tempfile.TemporaryDirectory(prefix="extst-") as directory:
        images = Images(Path(directory))
        cleans = tell_all(images, stories)
        for clean in cleans:
            print(f"{clean.story.name}: {len(clean.calls)} calls")
        print(f"seed {options.seed}", flush=True)
        counts: Counter[str] = Counter()
        for outcome in sweep(cleans, images, options.seed, options.seconds, options.jobs):
            counts.update(["points", "hit" if outcome.hit else "not made in that run"])
            if outcome.violations:
                counts["violated"] += 1
                print(f"{outcome.point}: {outcome.violations}\n{outcome.log}", flush=True)
        print(dict(counts))
    return 1 if counts["violated"] else 0


if __name__ == "__main__":
    sys.exit(main())
