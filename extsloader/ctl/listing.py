"""What in an image's file system deserves a look before it is trusted."""

import re
import subprocess

DEADLINE = 60.0  # seconds
_LINE = re.compile(
    r"(?P<kind>[bc-])(?P<mode>[rwxsStT-]{9}) .* [0-9]{2}:[0-9]{2} squashfs-root/(?P<path>.+)"
)
_ABSENT = "cannot look for device nodes and setuid files: unsquashfs (squashfs-tools) failed: {}"


def find_warnings(path: str) -> list[str]:
    """Device nodes, and files that are setuid or setgid, of a verified image: sentences.

    None of them harms a device below the profile `trusted`: mounts are `nosuid,nodev` and services
    get no new privileges. A signer may still want to know.
    """
    try:
        done = subprocess.run(
            ["unsquashfs", "-lln", path],
            capture_output=True,
            check=True,
            timeout=DEADLINE,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [_ABSENT.format(error)]
    found = (_LINE.fullmatch(line) for line in done.stdout.splitlines())
    return [text for match in found if match and (text := _judge(match))]


def _judge(match: re.Match[str]) -> str:
    path, mode = match["path"], match["mode"]
    if match["kind"] != "-":
        return f"device node {path}"
    bits = [name for name, place in (("setuid", 2), ("setgid", 5)) if mode[place] in "sS"]
    return f"{' and '.join(bits)} file {path}" if bits else ""
