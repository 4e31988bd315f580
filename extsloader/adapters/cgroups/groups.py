"""What both versions have in common: directories that are groups, and processes in them."""

import os
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from extsloader.model.errors import MachineError
from extsloader.model.manifest import Resources
from extsloader.model.reasons import Code
from extsloader.model.settings import Limits

PATIENCE = 1.0  # seconds; giving back the memory of a killed process takes milliseconds
_MOST_PASSES: Final = 100  # without a pids controller a fork bomb may outrun some
_MOST_NAMED: Final = 10  # process ids in an error


def missing(path: Path) -> str:
    """Why a limit's file is not there, "" when it is."""
    if path.exists():
        return ""
    return f"this kernel has no {path.name}" if path.parent.exists() else "there is no such group"


def write(path: Path, value: object) -> str:
    """Write one value; returns why the kernel did not take it, "" when it did."""
    if reason := missing(path):
        return reason
    try:
        path.write_text(f"{value}")
    except OSError as error:
        return f"the kernel refused {value} in {path.name}: {error.strerror}"
    return ""


def read_number(path: Path) -> int | None:
    """The only number in a file; None where the file is missing or says "max"."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def read_key(path: Path, key: str) -> int | None:
    """The number behind a word at the beginning of a line."""
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return None


def tree(group: Path) -> list[Path]:
    """A group and all below it, children first; nothing where there is none."""
    return [Path(path) for path, _, _ in os.walk(group, topdown=False)]


def processes(groups: Iterable[Path]) -> set[int]:
    """Ids of the processes in some groups and below them."""
    found: set[int] = set()
    for group in groups:
        for one in tree(group):
            with suppress(OSError):  # it may be removed meanwhile
                found.update(map(int, (one / "cgroup.procs").read_text().split()))
    return found


def kill_all(groups: list[Path], pids_max: Path) -> None:
    """SIGKILL every process, without leaving one that was forked meanwhile.

    A limit of zero processes (pids.max) lets no further fork succeed, so that the number of those
    not yet killed can only fall; a fork under way shows up in the next pass.
    """
    old = pids_max.read_text().strip() if pids_max.exists() else ""
    if old:
        write(pids_max, 0)
    killed: set[int] = set()
    for _ in range(_MOST_PASSES):
        new = processes(groups) - killed
        if not new:
            break
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= new
    if old:
        write(pids_max, old)


def wait_for_end(pids: Iterable[int]) -> None:
    """Wait for processes that were killed, all of them together for `PATIENCE` at most."""
    deadline = time.monotonic() + PATIENCE
    for pid in pids:
        with suppress(ProcessLookupError):
            end = os.pidfd_open(pid)
            try:
                select.select([end], [], [], max(0, deadline - time.monotonic()))
            finally:
                os.close(end)


def remove_tree(group: Path) -> None:
    """Remove a group and all below it. Raises MachineError(E_BUSY) that names who is left."""
    for one in tree(group):
        try:
            one.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            left = sorted(processes([group]))[:_MOST_NAMED]
            names = ", ".join(map(str, left)) or "none that can be seen"
            raise MachineError(
                Code.BUSY,
                f"remove the group {group}",
                f"{(error.strerror or '').lower()}, processes in it: {names}",
            ) from error


def remove_parents(groups: Iterable[Path]) -> None:
    """Remove groups that hold no group of a service any more. Raises MachineError(E_BUSY)."""
    for group in groups:
        if children := [path.name for path in group.glob("*/")]:
            raise MachineError(
                Code.BUSY, f"remove the group {group}", f"it still holds {', '.join(children)}"
            )
        remove_tree(group)


def aggregate(limits: Limits) -> Resources:
    """The limits of all services together."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = limits.memory or machine * 3 // 4
    return Resources(memory=memory, cpu_weight=limits.cpu_weight, pids=limits.pids)


def disks(sys_block: Path = Path("/sys/block")) -> list[str]:
    """Numbers ("major:minor") of the block devices that hold a medium now; caps go to each."""
    found = []
    for disk in sorted(sys_block.iterdir()):
        with suppress(OSError):  # it may be pulled out meanwhile
            if int((disk / "size").read_text()):
                found.append((disk / "dev").read_text().strip())
    return found


def has_bfq(sys_block: Path = Path("/sys/block")) -> bool:
    """Whether any disk uses the one scheduler that honours *.bfq.weight."""
    for file in sys_block.glob("*/queue/scheduler"):
        with suppress(OSError):
            if "[bfq]" in file.read_text():
                return True
    return False


def cap_disks(file: Path, form: str) -> str:
    """Write a cap for each disk there is now, in the form "{} 1048576"; why any was refused.

    One disk a write: the kernel takes only the first line of each.
    """
    return "; ".join(filter(None, [write(file, form.format(disk)) for disk in disks()]))


def sentences(reasons: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """From limits and why they were not taken, leaving out those that were ("")."""
    return tuple(f"{limit} not applied: {reason}" for limit, reason in reasons if reason)
