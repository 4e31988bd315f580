"""conmon's command line, and what it reports: pure functions around a tool's formats.

conmon (conmon(8)) is the container's parent: it keeps its output and its exit code, and outlives
the agent. Its end therefore is the container's end, or, without an exit file, its own accident.
"""

import json
import re
from pathlib import Path

from extsloader.model.events import Cause, CauseKind, judge

SYNC_PIPE = 3
"""Descriptor on which conmon tells the container's pid, or why there is none."""

MAX_REASON = 500  # characters

_COMPLAINT = re.compile(r'level=(?:error|fatal) msg="((?:[^"\\]|\\.)*)"')


def command_line(
    conmon: str, runtime: tuple[str, ...], container: str, directory: Path, log: tuple[str, ...]
) -> tuple[str, ...]:
    """Arguments that make conmon create the container whose config.json is in `directory`.

    `--sync` keeps conmon our direct child, so that it can be killed by descriptor and cannot die
    unseen. `--full-attach` does without a socket directory outside of `directory`. It works in
    `directory`, because it writes a file `oom` into its working directory. `log` says what becomes
    of the container's output.
    """
    program, *arguments = runtime
    return (
        *("/usr/bin/env", f"--chdir={directory}", conmon),
        *("--api-version", "1", "--sync", "--full-attach", "--no-sync-log"),
        *("--cid", container, "--cuuid", container, "--name", container),
        *("--runtime", program),
        *(f"--runtime-arg={argument}" for argument in arguments),
        *("--bundle", f"{directory}", "--persist-dir", f"{directory}"),
        *("--exit-dir", f"{directory}/exits", "--container-pidfile", f"{directory}/pid"),
        *("--log-level", "error"),
        *log,
    )


def log_to_file(path: str, size: int) -> tuple[str, ...]:
    """Options that write the output into a file, which is started anew after `size` bytes."""
    return "--log-path", f"k8s-file:{path}", "--log-size-max", f"{size}"


def log_to_streams(complaints: Path) -> tuple[str, ...]:
    """Options that give the container conmon's own output.

    The runtime's complaints would go there, too, so they get a file of their own.
    """
    log = ("--runtime-arg=--log", f"--runtime-arg={complaints}")
    return "--log-path", "passthrough:", *log


def read_pid(answer: bytes, errors: str) -> int:
    """The container's pid from conmon's answer. Raises ValueError with the runtime's reason."""
    try:
        told = json.loads(answer)
        pid, message = told["data"], f"{told.get('message', '')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = find_reason(errors) or "conmon ended without an answer"
        raise ValueError(reason) from None
    if not isinstance(pid, int) or pid <= 0:
        raise ValueError(find_reason(message) or f"conmon answered {pid}")
    return pid


def find_reason(errors: str) -> str:
    """What a runtime complains of: all of runc's errors (logfmt), the last line of others."""
    found = [_unescape(text).strip() for text in _COMPLAINT.findall(errors)]
    found = found or errors.strip().splitlines()[-1:]
    return "; ".join(dict.fromkeys(found))[:MAX_REASON]


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


def read_cause(directory: Path, container: str) -> Cause:
    """How the container ended, after conmon has ended.

    The `oom` file stays after any kill for lack of memory in the container.
    """
    try:
        code = int((directory / "exits" / container).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return Cause(CauseKind.LOST)
    return judge(code, oom=(directory / "oom").exists())
