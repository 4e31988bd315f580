"""One system call of a real agent is killed or made to fail, from outside (strace(1), "Tampering").

strace counts calls for each thread of its own, so a call is named by the path that it works on
wherever that is the same in every run: then it does not matter which thread does it.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.real_agent import RealAgent

KILL, AFTER = "kill before", "kill after"
ERRORS = ("EIO", "ENOSPC", "EINTR", "ENOMEM")
SIGNALS = ("kill", "pidfd_send_signal")

LASTING = frozenset(
    {
        "fsync",
        "fdatasync",
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "unlink",
        "unlinkat",
        "mkdir",
        "mkdirat",
        "rmdir",
        "ftruncate",
        "fallocate",
        "mount",
        "umount2",
        "symlink",
        "symlinkat",
        "fchmod",
        "kill",
        "pidfd_send_signal",
        "vfork",
        "clone3",
    }
)
"""Calls that leave something behind whatever their arguments are."""
DEPENDS = {
    "openat": re.compile(r"O_CREAT|O_TMPFILE"),
    "ioctl": re.compile(r"LOOP_(?!CTL_GET)|BLKROSET|DM_"),
    "write": re.compile(r"</sys/fs/cgroup/|/persist/|/containers/"),
    "pwrite64": re.compile(""),
}
STARTS = re.compile(r"CLONE_THREAD")
LINE = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<said>.*)")
PATHS = re.compile(r'[<"](/[^">]+)[">]')
CHANGES = re.compile(r"/containers/[^/]+\.|/#\d+|/proc/")
"""Parts of paths that are other ones in each run."""
DONE = r"\((INJECTED|DELAYED)\)|killed by SIGKILL"
"""Of a call before which its process is killed nothing is written but its beginning."""
WRAPPER = """\
#!/bin/sh
grep -qsE '{done}' '{trace}' && exec {python} "$@"
exec {strace} {python} "$@"
"""
AS_PYTHON = """
import runpy, sys
sys.executable = sys.argv[1]
sys.argv[:] = ["extsloaderd", *sys.argv[5:]]
runpy.run_module("extsloader.lean", run_name="__main__")
"""
"""Runs the agent; what it starts as Python is something else."""


@dataclass(frozen=True, slots=True)
class Call:
    """The `count`th call of that name on that path (of any, without one) that a thread makes."""

    name: str
    path: str  # with {root} and {group}
    count: int
    helper: bool = False  # of the process that verifies

    def __str__(self) -> str:
        return f"{self.name}({self.path or '...'}) #{self.count}"


def list_calls(trace: Path, agent: RealAgent, *, helper: bool = False) -> list[Call]:
    """Every call of a run that leaves something behind, each address once, in its order."""
    counts: Counter[tuple[str, ...]] = Counter()
    found: dict[Call, None] = {}
    for line in trace.read_text(errors="replace").splitlines():
        call = LINE.match(line)
        if not call:
            continue
        thread, name, said = call["thread"], call["name"], call["said"]
        paths = _paths(said, agent)
        for path in ("", *paths):
            counts[thread, name, path] += 1
        if _lasts(name, said):
            path = paths[0] if paths else ""
            found[Call(name, path, counts[thread, name, path], helper)] = None
    return list(found)


def _lasts(name: str, said: str) -> bool:
    if name in DEPENDS:
        return DEPENDS[name].search(said) is not None
    return name in LASTING and not STARTS.search(said)


def _paths(said: str, agent: RealAgent) -> list[str]:
    """Paths below the agent's directories that are named alike in every run."""
    ours = (
        path
        for path in PATHS.findall(said)
        if agent.cgroup in path or path.startswith(str(agent.root))
    )
    stable = (path for path in ours if not CHANGES.search(path))
    group = [path.replace(agent.cgroup, "{group}") for path in stable]
    return list(dict.fromkeys(path.replace(str(agent.root), "{root}") for path in group))


def modes(call: Call) -> tuple[str, ...]:
    """What can happen at it; a signal is never refused for such reasons (kill(2), ERRORS)."""
    return (KILL, AFTER) if call.name in SIGNALS else (KILL, AFTER, *ERRORS)


def tamper(call: Call, mode: str) -> list[str]:
    """Options of strace for that."""
    how = {KILL: "signal=KILL", AFTER: "delay_exit=60000000"}.get(mode, f"error={mode}")
    where = ["-P", call.path] if call.path else []
    return [*where, "-e", f"inject={call.name}:{how}:when={call.count}"]


def command(
    agent: RealAgent, trace: Path, call: Call | None = None, mode: str = KILL, *, helper: bool
) -> list[str]:
    """What starts an agent below strace; or only its helpers, until the call was hit once."""
    names = ",".join([*LASTING, *DEPENDS])
    # -D: it is the child of its starter, as without strace; -b: its own children are left alone.
    argv = ["strace", "-D", "-f", "-b", "execve", "-q", "-y", "-s", "200", "-A", "-o", f"{trace}"]
    argv += ["-e", f"trace={names}"]
    if call:
        path = call.path.format(root=agent.root, group=agent.cgroup)
        argv += tamper(Call(call.name, path, call.count), mode)
    if not helper:
        return argv
    wrapper = trace.with_name("python")
    words = {"done": DONE, "trace": trace, "python": sys.executable, "strace": shlex.join(argv)}
    wrapper.write_text(WRAPPER.format(**words))
    wrapper.chmod(0o700)
    return [sys.executable, "-c", AS_PYTHON, f"{wrapper}"]


def was_tampered_with(trace: Path) -> bool:
    """Did the call come at all?"""
    return re.search(DONE, trace.read_text(errors="replace")) is not None


def held(trace: Path) -> int | None:
    """The process that is held after its call, before it knows what came of it."""
    line = re.search(r"^(\d+) .*\(DELAYED\)$", trace.read_text(errors="replace"), re.MULTILINE)
    return int(line[1]) if line else None


def let_go(agent: RealAgent) -> None:
    """End strace, which lets everything run on that it traces."""
    for tracer in set(tracers(agent.processes())):
        with suppress(ProcessLookupError):
            os.kill(tracer, signal.SIGTERM)


def tracers(pids: Sequence[int] | dict[int, str]) -> Iterator[int]:
    """Who traces these processes (proc(5), TracerPid)."""
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            tracer = next(int(line.split()[1]) for line in lines if line.startswith("TracerPid"))
            if tracer:
                yield tracer


@contextmanager
def attached(agent: RealAgent, rule: str) -> Iterator[None]:
    """A running agent below strace, with all its threads and without what it executes."""
    argv = ["strace", "-f", "-b", "execve", "-o", os.devnull, "-e", rule, "-p", str(agent.pid)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        line = tracer.stderr.readline()
        assert "attached" in line, line
        try:
            yield
        finally:
            tracer.terminate()


def is_there() -> bool:
    """Some machines do not allow ptrace(2)."""
    argv = ["strace", "-o", os.devnull, sys.executable, "-c", ""]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
