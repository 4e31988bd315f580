"""The command line of the agent; `extsloader.lean` calls it.

What takes long to load is loaded while another process checks the settings: on a small device each
of the two takes a second or more.
"""

import argparse
import gc
import sys
from collections.abc import Sequence
from functools import partial

import extsloader
from extsloader.settings.start import start_checking

USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run until stopped: 0 after a clean stop, 1 with something left behind, 2 for bad settings."""
    options = _parse(argv)
    try:
        checking = start_checking(options.config, options.root)
    except OSError as error:
        print(f"cannot check the configuration: {error}", file=sys.stderr)
        return 1
    gc.disable()  # what is loaded stays; looking for garbage in it takes a tenth of the time
    from extsloader.model.errors import SettingsError  # noqa: PLC0415 - see above
    from extsloader.settings.load import end_checking, load_settings, read_settings  # noqa: PLC0415
    from extsloader.wiring import run  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    try:
        settings = read_settings(checking)
        if not options.check_config:
            load = partial(load_settings, options.config, options.root)
            return run(settings, checking, load)
        print("the configuration is good")
    except SettingsError as error:
        print(error, file=sys.stderr)
        return USAGE
    finally:
        end_checking(checking)
    return 0


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
