"""The boot-critical services of the test device, which nothing may disturb."""

from dataclasses import dataclass

from tests.fakes.guest import Guest

NAMES = ("pillar", "newlogd", "watchdog")
MAX_GAP = 3.0  # seconds between two beats; they beat ten times a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Standin:
    """One of them, as its heartbeat file tells it."""

    pid: int
    beats: int
    gap: float  # seconds, the longest until now


async def read_standins(guest: Guest) -> dict[str, Standin]:
    # Nothing tells of a first beat: in the guest there is nothing but to look again.
    files = [f"/run/{name}/heartbeat" for name in NAMES]
    waits = [f"until [ -s {file} ]; do sleep 0.1; done" for file in files]
    text = await guest.run("; ".join((*waits, *(f"cat {file}" for file in files))))
    return {name: _parse(line) for name, line in zip(NAMES, text.splitlines(), strict=True)}


def assert_undisturbed(before: dict[str, Standin], after: dict[str, Standin]) -> None:
    """The same processes went on beating."""
    for name in NAMES:
        assert after[name].pid == before[name].pid, f"{name} was restarted"
        assert after[name].beats > before[name].beats, f"{name} stopped"
        assert after[name].gap < MAX_GAP, f"{name} was held up for {after[name].gap} s"


def _parse(line: str) -> Standin:
    pid, beats, gap = line.split()
    return Standin(pid=int(pid), beats=int(beats), gap=float(gap))
