"""`make demo`: the whole way of a pkgs image, from Debian packages to running services.

Everything lives below one temporary directory. It watches one loop device only, so nothing else
of the machine is looked at. At the end it proves that nothing was left behind.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from extsloader import __version__

HOME = Path(__file__).parents[1]
BIN = HOME / ".venv" / "bin"
BUILD = HOME / "build" / "demo"
CGROUP = "extsloader-demo"
METRICS = "http://127.0.0.1:19100/metrics"
BROKER = ["mosquitto_sub", "-h", "127.0.0.1", "-p", "11883"]
DEADLINE = 60.0  # seconds from the attached device to ready; it takes about 3


class DemoError(Exception):
    """The demo did not show what it should."""


def main() -> int:
    """0 when everything was ready and nothing was left behind, 1 otherwise."""
    root = Path(tempfile.mkdtemp(prefix="extsloader-demo-"))
    try:
        image = build()
        with agent(root) as device:
            attach_and_follow(root, device, image)
            prove(root)
            stay()
    except (DemoError, subprocess.CalledProcessError) as error:
        print(f"\nthe demo failed: {error}\nlog of the agent: {root}/agent.log")
        return 1
    return check_nothing_left(root)


def build() -> Path:
    """The signed image of `images/rootfs_pkgs.yml.in`; a second time from the cache."""
    say("Build and sign the pkgs image")
    key = BUILD / "extsloader.key"
    if not key.exists():
        subprocess.run([BIN / "mkext", "keygen", BUILD], check=True)
    definition = HOME / "images" / "rootfs_pkgs.yml.in"
    command: list[str | Path] = [BIN / "mkext", "build", definition, "--key", key]
    command += ["--out", BUILD, "--image-version", __version__, "--allow-newer"]
    subprocess.run(command, check=True, cwd=HOME)
    return BUILD / "rootfs-pkgs.img"


@contextmanager
def agent(root: Path) -> Iterator[str]:
    """A running extsloaderd that watches one free loop device, whose node it yields."""
    with ExitStack() as stack:
        device = run(["losetup", "-f"]).strip()
        configure(root, device)
        say("Start extsloaderd")
        daemon = start_daemon(root)
        stack.callback(stop, daemon, device)
        yield device


def configure(root: Path, device: str) -> None:
    """Keys and configuration below the demo's root."""
    etc = root / "etc" / "extsloader"
    (etc / "keys").mkdir(parents=True)
    shutil.copy(BUILD / "extsloader.pem", etc / "keys")
    (etc / "extsloader.toml").write_text(
        f'cgroup = "{CGROUP}"\n\n[filters]\ndevices = ["{device}"]\n', encoding="utf-8"
    )


def start_daemon(root: Path) -> subprocess.Popen[bytes]:
    """Started as a service manager would: it says READY=1 when it may be relied upon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{root}/notify")
        manager.settimeout(20)
        log = (root / "agent.log").open("wb")
        daemon = subprocess.Popen(
            [BIN / "extsloaderd", "--root", root],
            stderr=log,
            env={**os.environ, "NOTIFY_SOCKET": f"{root}/notify"},
        )
        try:
            while manager.recv(4096) != b"READY=1":
                pass
        except TimeoutError:
            daemon.kill()
            raise DemoError("extsloaderd did not say READY=1 within 20 s") from None
    return daemon


def attach_and_follow(root: Path, device: str, image: Path) -> None:
    """Plug the image in and show what the agent does with it."""
    say(f"Attach {image.relative_to(HOME)} as {device}")
    subprocess.run(["losetup", "--read-only", device, image], check=True)
    started = time.monotonic()
    seen = 0
    shown = ""
    status = ask(root, "/v1/status")
    while status["state"] not in ("ready", "degraded", "failed"):
        seen = show_changes(root, seen, started)
        shown = show_progress(status, shown)
        if time.monotonic() - started > DEADLINE:
            raise DemoError(f"not ready after {DEADLINE:.0f} s: {status['reason']}")
        status = ask(root, f"/v1/status?beyond={status['generation']}&timeout=5")
    show_changes(root, seen, started)
    if status["state"] != "ready":
        raise DemoError(f"{status['state']}: {status['reason']}")


def show_changes(root: Path, seen: int, started: float) -> int:
    """Print the changes of state since the last look; returns the number of the last one."""
    for change in ask(root, f"/v1/events?since={seen}"):
        seen = change["id"]
        if not change["subject"].startswith("candidate /dev") or change["new"] != "ignored":
            reason = f"  ({change['reason']})" if change.get("reason") else ""
            took = time.monotonic() - started
            print(f"  {took:5.1f} s  {change['subject']:28} {change['new']}{reason}", flush=True)
    return seen


def show_progress(status: dict[str, Any], shown: str) -> str:
    """How much of an image is copied, where a new figure has come."""
    for candidate in status["candidates"]:
        if candidate.get("progress") is not None:
            text = f"           copying and hashing: {candidate['progress']:4.0%}"
            if text != shown:
                print(text, flush=True)
            return text
    return shown


def prove(root: Path) -> None:
    """The services do what they are for, and the agent tells the truth about them."""
    say("Proof: figures from node-exporter")
    with urllib.request.urlopen(METRICS, timeout=5) as answer:  # loopback
        figures = answer.read().decode().splitlines()
    wanted = [line for line in figures if line.startswith(("node_load1 ", "node_boot_time"))]
    print("  " + "\n  ".join(wanted))
    say("Proof: a message through the broker")
    print("  " + run([*BROKER, "-t", "device/telemetry", "-C", "1", "-W", "10"]).strip())
    for verb in (["status"], ["explain", "telemetry"]):
        say(f"extsloaderctl {' '.join(verb)}")
        subprocess.run([BIN / "extsloaderctl", "--root", root, *verb], check=True)


def stay() -> None:
    """On a terminal the demo stays until Ctrl-C, so that one can look around."""
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        return
    say("Everything runs. Ctrl-C stops it")
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def stop(daemon: subprocess.Popen[bytes], device: str) -> None:
    """Stop the services and the agent, and take the device away."""
    say("Stop")
    daemon.send_signal(signal.SIGTERM)
    try:
        code = daemon.wait(timeout=60)
    except subprocess.TimeoutExpired:
        daemon.kill()
        code = daemon.wait()
    print(f"  extsloaderd ended with {code}")
    subprocess.run(["losetup", "--detach", device], check=False, stderr=subprocess.DEVNULL)


def check_nothing_left(root: Path) -> int:
    """0 when no mount, loop device, cgroup or process of the demo is left."""
    left = [*leftover_mounts(root), *leftover_loops(root), *leftover_cgroups()]
    left += leftover_processes(root)
    for item in left:
        print(f"  left behind: {item}")
    if not left:
        shutil.rmtree(root)
        print("  nothing was left behind")
    return 1 if left else 0


def leftover_mounts(root: Path) -> list[str]:
    """Mount points below the demo's root."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [f"mount {p}" for p in (line.split()[4] for line in lines) if p.startswith(f"{root}/")]


def leftover_loops(root: Path) -> list[str]:
    """Loop devices on files of the demo."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    ours = (f"{root}/", f"{BUILD}/")
    return [f"loop device {f.parents[1].name}" for f in files if f.read_text().startswith(ours)]


def leftover_cgroups() -> list[str]:
    """Groups of the demo in any hierarchy."""
    return [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"**/{CGROUP}")]


def leftover_processes(root: Path) -> list[str]:
    """Processes that name the demo's root in their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(root) in words:
            found.append(f"process {file.parent.name}: {words}")
    return found


def ask(root: Path, path: str) -> Any:
    """What the status socket answers, by curl as a user would ask."""
    control = root / "run" / "extsloader" / "extsloader.sock"
    accept = ["-H", "Accept: application/json"]
    url = ["--unix-socket", str(control), f"http://localhost{path}"]
    return json.loads(run(["curl", "-sS", "--max-time", "20", *accept, *url]))


def run(command: list[str]) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def say(headline: str) -> None:
    """The next part of the demo."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{headline}{plain}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
