"""The command line of the agent; `extsloader.lean` calls it."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

import extsloader
from extsloader.adapters.journal import LibraryLog, open_journal
from extsloader.adapters.notify import take_notifier
from extsloader.model.errors import MachineError, SettingsError
from extsloader.settings.load import load_settings
from extsloader.wiring import serve

USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run until stopped: 0 after a clean stop, 1 with something left behind, 2 for bad settings."""
    options = _parse(argv)
    try:
        settings = load_settings(options.config, options.root)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return USAGE
    if options.check_config:
        print("the configuration is good")
        return 0
    journal = open_journal(settings.log_format)
    logging.getLogger().addHandler(LibraryLog(journal))
    try:
        world = asyncio.run(serve(settings, journal, take_notifier(os.environ)))
    except MachineError as error:
        problem = error.problem
        journal.log.critical(
            "stopped", code=problem.code, reason=problem.message, hint=problem.hint
        )
        return 1
    for problem in world.leftovers:
        journal.log.error("left behind", code=problem.code, reason=problem.message)
    return 1 if world.leftovers else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="extsloaderd", description="Finds, verifies, mounts and runs the pkgs image."
    )
    parser.add_argument("--config", metavar="FILE", help="configuration, TOML")
    parser.add_argument(
        "--root", metavar="DIR", default="/", help="take every default path below DIR"
    )
    parser.add_argument(
        "--check-config", action="store_true", help="check the configuration and end"
    )
    parser.add_argument("--version", action="version", version=extsloader.__version__)
    return parser.parse_args(argv)
