"""ext4 file systems of real tools, filled without a mount."""

import subprocess
from pathlib import Path


def make(path: Path, *options: str, size: int = 8 << 20) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-qF", *options, str(path)], check=True, capture_output=True)
    return path


def change(stick: Path, *commands: str) -> None:
    """Let debugfs do it, which is silent only where all went well."""
    script = "\n".join(commands)
    done = subprocess.run(
        ["debugfs", "-w", "-f", "-", stick],
        input=script,
        text=True,
        check=True,
        capture_output=True,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    assert not said, said


def put(stick: Path, name: str, content: bytes) -> None:
    source = stick.with_name("source")
    source.write_bytes(content)
    change(stick, f"write {source} {name}")
