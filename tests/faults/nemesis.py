"""Operations and faults in a random order against a real agent, and a checker that reads what came.

Everything goes into a history file, a line of JSON each with the time since boot. `check` proves
the invariants from that file alone. `python -m tests.faults.nemesis --help` runs it for long.
"""

import argparse
import json
import os
import random
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.ctl.client import RefusedError
from extsloader.model.status import StatusSnapshot
from tests.fakes.real_agent import RealAgent
from tests.fakes.real_images import make_image, service
from tests.faults.crash_points import AT_ONCE, Images, Stage, staged

GOOD = (1, 2, 3)
BAD = 9  # the sequence of images that nobody signed
ANSWERS_WITHIN = 5.0  # seconds; invariant I8 says one, but not on a machine that tests keep busy
QUIET = 2.0  # seconds after which a fault or an order has had its effect
CONVERGES_WITHIN = 30.0  # seconds, invariant I10
VERBS = {"restart": 4, "start": 3, "resume": 3, "stop": 1, "pause": 1}  # and how often
TRIES = 20  # to meet a runtime at work, which takes 10 ms
Entry = Mapping[str, Any]


class Nemesis:
    """Plays with one agent until it is told to end."""

    def __init__(self, stage: Stage, images: Mapping[int, Path], seed: int) -> None:
        self._stage = stage
        self._agent: RealAgent = stage.agent
        self._images = images
        self._dice = random.Random(seed)
        self.path = stage.agent.root / "history.jsonl"
        self._file = self.path.open("w", buffering=1)

    def play(self, seconds: float) -> None:
        """One act after another, and in the end a return to peace."""
        acts: list[tuple[Callable[[], None], int]] = [
            (self._plug, 4), (self._pull, 3), (self._order, 4), (self._query, 6),
            (self._kill_agent, 2), (self._kill_helpers, 3), (self._hold_agent, 2),
            (self._kill_runtime, 3), (self._kill_service, 2), (self._kill_conmon, 1),
            (self._restart, 1),
        ]  # fmt: skip
        choices, weights = zip(*acts, strict=True)
        self._stage.install(self._images[1])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._dice.choices(choices, weights)[0]()
            self._query()
            self._pass(self._dice.random() * 0.3)
        self._make_peace()
        self._file.close()

    def _write(self, kind: str, **details: object) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._file.write(json.dumps({"boottime": now, "kind": kind} | details) + "\n")

    @staticmethod
    def _pass(seconds: float) -> None:
        select.select([], [], [], seconds)

    def _plug(self) -> None:
        if self._stage.stick.is_plugged_in():
            self._pull()
        sequence = self._dice.choice((*GOOD, BAD))
        if sequence == BAD:
            self._pass(QUIET)
            self._query()
        self._write("plug", sequence=sequence)
        self._stage.stick.plug_in(self._images[sequence])

    def _pull(self) -> None:
        if self._stage.stick.is_plugged_in():
            self._write("pull")
            self._stage.stick.pull_out()
            while self._stage.stick.is_plugged_in():  # somebody still reads it
                self._pass(0.01)

    def _order(self) -> None:
        name = self._dice.choice(("base", "api"))
        (verb,) = self._dice.choices([*VERBS], [*VERBS.values()])
        self._write("order", verb=verb, service=name)
        with suppress(RefusedError):  # that is an answer, too
            self._agent.client.order(f"/v1/services/{name}/{verb}", wait=5)

    def _query(self) -> None:
        asked = time.monotonic()
        status = self._agent.status()
        self._write("status", seconds=time.monotonic() - asked, **told(status))

    def _kill_agent(self) -> None:
        self._write("kill agent")
        self._agent.kill()
        self._agent.start()
        self._write("started")

    def _restart(self) -> None:
        self._write("stop agent")
        self._write("stopped", code=self._agent.stop(), left=self._agent.leftovers())
        self._agent.start()
        self._write("started")

    def _hold_agent(self) -> None:
        self._write("hold agent")
        os.kill(self._agent.pid, signal.SIGSTOP)
        self._pass(self._dice.random())
        os.kill(self._agent.pid, signal.SIGCONT)

    def _kill_helpers(self) -> None:
        self._kill("helpers", {*self._agent.helpers(), *self._agent.helpers("probe")})

    def _kill_runtime(self) -> None:
        """While it does something: the end of a service sees to that."""
        self._kill_service()
        for _ in range(TRIES):
            if found := self._named("runc"):
                self._kill("runtime", found)
                return

    def _kill_conmon(self) -> None:
        self._kill("conmon", self._named("conmon"))

    def _kill_service(self) -> None:
        self._kill("service", {s.pid for s in self._agent.status().services if s.pid})

    def _named(self, program: str) -> set[int]:
        found = self._agent.processes().items()
        return {pid for pid, line in found if line.split()[0].endswith(program)}

    def _kill(self, what: str, pids: set[int]) -> None:
        if pids:
            victim = self._dice.choice(sorted(pids))
            self._write(f"kill {what}", pid=victim)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def _make_peace(self) -> None:
        """No fault any more; a polite restart ends safe mode and what operators stopped."""
        self._restart()
        self._agent.until(lambda status: status.services)  # only those that it knows can be told
        for verb, name in product(("resume", "start"), ("base", "api")):
            with suppress(RefusedError):
                self._agent.client.order(f"/v1/services/{name}/{verb}", wait=5)
        self._write("peace")
        with suppress(AssertionError):
            self._agent.until(is_well, CONVERGES_WITHIN)
        self._query()
        self._write("odd", found=self._stage.oddities())
        self._write("end", code=self._agent.stop(), left=self._agent.leftovers())


def is_well(status: StatusSnapshot) -> bool:
    """What every run comes to in the end."""
    return status.state == "ready" and {s.state for s in status.services} == {"ready"}


def told(status: StatusSnapshot) -> dict[str, object]:
    """What the checker needs of an answer."""
    return {
        "state": status.state,
        "well": is_well(status),
        "sequence": status.image.sequence if status.image else None,
        "floors": {floor.name: floor.sequence for floor in status.floors},
        "pids": {service.name: service.pid for service in status.services},
        "mode": {service.name: service.state for service in status.services},
    }


def check(path: Path) -> list[str]:
    """Every contradiction to an invariant in a history file."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    answers = [entry for entry in entries if entry["kind"] == "status"]
    return [
        *_unanswered(answers), *_lowered(answers), *_forbidden(entries), *_disturbed(entries),
        *_unconverged(entries), *_left(entries),
    ]  # fmt: skip


def _unanswered(answers: list[Entry]) -> Iterator[str]:
    """I8."""
    for answer in answers:
        if answer["seconds"] > ANSWERS_WITHIN:
            yield f"I8: an answer took {answer['seconds']:.1f} s at {answer['boottime']}"


def _lowered(answers: list[Entry]) -> Iterator[str]:
    """I5."""
    for before, after in pairwise(answers):
        for name, floor in before["floors"].items():
            if after["floors"].get(name, 0) < floor:
                yield f"I5: the floor of {name} fell from {floor} at {after['boottime']}"


def _forbidden(entries: list[Entry]) -> Iterator[str]:
    """I1: only what was signed and plugged in runs, and nothing older than the floor of before."""
    offered, floor = {1}, 0
    for entry in entries:
        if entry["kind"] == "plug" and entry["sequence"] != BAD:
            offered.add(entry["sequence"])
        if entry["kind"] == "status":
            sequence = entry["sequence"]
            if sequence is not None and (sequence not in offered or sequence < floor):
                yield f"I1: image {sequence} at {entry['boottime']}; floor {floor}, {offered}"
            floor = max([floor, *entry["floors"].values()])


def _disturbed(entries: list[Entry]) -> Iterator[str]:
    """I12: between two answers with nothing but a bad stick between them, and quiet before."""
    last: Entry | None = None
    loud = float("-inf")
    for entry in entries:
        if entry["kind"] != "status":
            loud = loud if entry.get("sequence") == BAD else entry["boottime"]
            continue
        quiet = last is not None and last["boottime"] >= loud + QUIET
        if last and quiet and last["well"] and entry["pids"] != last["pids"]:
            yield f"I12: a bad stick changed {last['pids']} at {entry['boottime']}"
        last = entry


def _unconverged(entries: list[Entry]) -> Iterator[str]:
    """I10."""
    last = [entry for entry in entries if entry["kind"] == "status"][-1]
    if not last["well"]:
        yield f"I10: the end is {last}"


def _left(entries: list[Entry]) -> Iterator[str]:
    """I2, I3, I6."""
    for entry in entries:
        if entry.get("left") or entry.get("found") or entry.get("code"):
            yield f"I2, I3, I6: {entry}"


def make_images(images: Images, directory: Path) -> dict[int, Path]:
    """By sequence; the services of each are other ones than those of the image before."""
    made = {}
    for sequence in (*GOOD, BAD):
        path = directory / f"{sequence}.img"
        base = service("base", essential=True, restart=AT_ONCE | {"limit": 0},
                       resources={"memory": (32 + sequence) << 20})  # fmt: skip
        api = service("api", requires=["base"], restart=AT_ONCE | {"limit": 0})
        key = Ed25519PrivateKey.generate() if sequence == BAD else images.key
        make_image(path, key, base, api, sequence=sequence)
        made[sequence] = path
    return made


def run(seed: int, seconds: float, directory: Path) -> tuple[list[str], Counter[str]]:
    """Play and check; contradictions (with history and log in `directory`), and what was done."""
    images = Images(directory)
    made = make_images(images, directory)
    with staged(images) as stage:
        nemesis = Nemesis(stage, made, seed)
        try:
            nemesis.play(seconds)
            wrong = check(nemesis.path)
        finally:
            shutil.copy(nemesis.path, directory / "history.jsonl")
            shutil.copy(stage.agent.root / "log", directory / "log")
    lines = (directory / "history.jsonl").read_text().splitlines()
    return wrong, Counter(json.loads(line)["kind"] for line in lines)


def main() -> int:
    """Exit code 1 after a contradiction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="extst-nemesis-"))
    wrong, counts = run(options.seed, options.seconds, directory)
    print("\n".join(wrong), dict(counts), directory, sep="\n")
    if not wrong:
        shutil.rmtree(directory)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
