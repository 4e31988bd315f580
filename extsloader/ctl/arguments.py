"""The command line of `extsloaderctl`."""

import argparse
import os
from collections.abc import Callable

from extsloader import __version__

SOCKET = "/run/extsloader/extsloader.sock"
KEYS = "/etc/extsloader/keys"
ROOT_HASH = "/etc/ext-verity-roothash"
MAX_PAUSE = 3600  # seconds
EPILOG = f"""exit codes: 0 yes, 1 no (not ready, refused, failed, too late), 2 wrong usage,
3 no daemon answers. The socket is that of --socket, else that of --root, else
$EXTSLOADER_SOCKET, else {SOCKET}"""
STATES = (
    "settled",
    "disabled",
    "searching",
    "verifying",
    "activating",
    "ready",
    "degraded",
    "failed",
    "stopping",
)
"""What `wait --for` takes. These are repeated here, as their modules load for 10 ms; a test
holds them equal to the model."""


COMMANDS = {
    "start": "let a stopped service run again; try one now that gave up or waits",
    "stop": "stop a service until it is started, or the device boots",
    "restart": "stop a service and start it again; those that need it run on",
    "pause": "stop a service until it is resumed, also across reboots",
    "resume": "let a paused service run again",
    "rescan": "look at all devices and directories anew",
    "reload": "read the configuration anew; a bad one changes nothing",
}
"""Verbs that change the agent: for root only."""


def build_parser() -> argparse.ArgumentParser:
    """All verbs and options."""
    parser = argparse.ArgumentParser(
        prog="extsloaderctl",
        description="Ask extsloaderd, or look at an image.",
        epilog=EPILOG,
        parents=[_common_options(absent=None)],
    )
    parser.add_argument("--version", action="version", version=f"extsloaderctl {__version__}")
    # After the verb a missing option must not override the one before it.
    common = _common_options(absent=argparse.SUPPRESS)
    verbs = parser.add_subparsers(prog=parser.prog, dest="verb", required=True, metavar="VERB")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text.capitalize(), parents=[common])

    add("status", "the whole: is the device ready, and if not, why")
    services = add("services", "all services, what is worst on top")
    services.add_argument("--names", action="store_true", help="only the names, one a line")
    explain = add("explain", "why a service is as it is, and what to do")
    explain.add_argument("name", metavar="NAME")
    add("candidates", "where an image was looked for, and the verdicts")
    events = add("events", "changes of state")
    events.add_argument("--follow", action="store_true", help="go on with what happens next")
    events.add_argument("--since", type=_count, default=0, metavar="N", help="those after number N")
    timeline = add("timeline", "what the start waited for, from the agent's start to ready")
    text = "draw it: .svg or .html"
    timeline.add_argument("-o", dest="output", type=_drawing, metavar="FILE", help=text)
    top = add("top", "what each service uses now, the busiest on top")
    text = "seconds between the two looks; default: 1"
    top.add_argument("--interval", type=_pause, default=1.0, metavar="S", help=text)
    _add_wait(add("wait", "wait until the device is ready"))
    for name, text in COMMANDS.items():
        command = add(name, text)
        if name not in ("rescan", "reload"):
            command.add_argument("name", metavar="NAME")
    _add_offline(add)
    completion = add("completion", "print a shell's completion script")
    completion.add_argument("shell", choices=("bash",))
    return parser


def find_socket(options: argparse.Namespace) -> str:
    """The status socket that is meant."""
    if options.socket:
        return str(options.socket)
    if options.root:
        return str(options.root).rstrip("/") + SOCKET
    return os.environ.get("EXTSLOADER_SOCKET") or SOCKET


def _common_options(*, absent: str | None) -> argparse.ArgumentParser:
    """Options that stand before or after the verb; `absent` is what stays where one is missing."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", default=absent, help="for programs")
    where = common.add_mutually_exclusive_group()
    where.add_argument(
        "--socket", metavar="PATH", default=absent, help="the daemon's status socket"
    )
    where.add_argument("--root", metavar="DIR", default=absent, help="as the daemon's --root")
    return common


def _add_wait(parser: argparse.ArgumentParser) -> None:
    text = "settled, or a state of the whole; default: ready"
    parser.add_argument(
        "--for", dest="goal", choices=STATES, default="ready", metavar="STATE", help=text
    )
    text = "how long, a daemon's start included; default: without end"
    parser.add_argument("--timeout", type=_seconds, default=float("inf"), metavar="S", help=text)


def _add_offline(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    text = "check an image as a device would, without a daemon"
    verify = add("verify", text)
    verify.add_argument("image", metavar="IMAGE")
    verify.add_argument("--keys", metavar="DIR", default=KEYS, help=f"default: {KEYS}")
    text = f"root hash and size of a pinned image; default: {ROOT_HASH}"
    verify.add_argument("--root-hash", metavar="FILE", default=ROOT_HASH, help=text)
    pcr = add("pcr", "what the TPM's PCR 12 will hold on a device that runs an image")
    pcr.add_argument("--image", metavar="IMAGE", required=True, help="which is checked first")
    pcr.add_argument("--keys", metavar="DIR", default=KEYS, help=f"default: {KEYS}")
    pcr.add_argument("--root-hash", metavar="FILE", default=ROOT_HASH, help=text)
    inspect = add("inspect", "what an image says about itself, NOT checked")
    inspect.add_argument("image", metavar="IMAGE")
    plan = add("plan", "in which order an image's services would start, NOT checked")
    plan.add_argument("image", metavar="IMAGE")


def _drawing(text: str) -> str:
    if text.endswith((".svg", ".html")):
        return text
    raise argparse.ArgumentTypeError(f"expected a name that ends in .svg or .html, got {text!r}")


def _count(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")


def _pause(text: str) -> float:
    """Short enough that nobody waits for ever."""
    if 0 < (seconds := _seconds(text)) <= MAX_PAUSE:
        return seconds
    raise argparse.ArgumentTypeError(f"expected more than 0 seconds, {MAX_PAUSE} at most")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if seconds >= 0:
        return seconds
    raise argparse.ArgumentTypeError(f"expected seconds from 0, got {text!r}")
