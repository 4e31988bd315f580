"""`extsloaderctl`: from a command line to an exit code."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from extsloader.ctl.arguments import build_parser, find_socket
from extsloader.ctl.completion import BASH
from extsloader.ctl.exits import INTERRUPTED, NO, YES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; nothing leaves but an exit code and sentences."""
    options = build_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the locale may be C
    try:
        code = _run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python's own flush at exit must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return YES
    return code


def _run(options: argparse.Namespace) -> int:
    # Not loaded for a verb that does not need it: cryptography and pydantic take 0.1 s.
    if options.verb == "completion":
        print(BASH)
        return YES
    if options.verb in {"verify", "inspect"}:
        from extsloader.ctl import offline  # noqa: PLC0415

        return YES if offline.look_at_image(options) else NO
    if options.verb == "plan":
        from extsloader.ctl import plan  # noqa: PLC0415

        return YES if plan.show_plan(options) else NO
    if options.verb == "pcr":
        from extsloader.ctl import offline  # noqa: PLC0415

        return YES if offline.predict_register(options) else NO
    from extsloader.ctl import online  # noqa: PLC0415

    return online.ask_daemon(options, find_socket(options), colours=_wants_colours())


def _wants_colours() -> bool:
    """On a terminal that has some, unless https://no-color.org says no."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


if __name__ == "__main__":
    sys.exit(main())
