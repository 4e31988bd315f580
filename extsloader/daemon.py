"""The command line of the agent; `extsloader.lean` calls it.

What takes long to load is loaded while another process checks the settings: on a small device each
of the two takes a second or more.
"""

import gc
import sys
from collections.abc import Sequence
from functools import partial

import extsloader
from extsloader.settings.start import start_checking

USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run until stopped: 0 after a clean stop, 1 with something left behind, 2 for bad settings."""
    config, root, only_check = _parse(sys.argv[1:] if argv is None else argv)
    try:
        checking = start_checking(config, root)
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
        if not only_check:
            load = partial(load_settings, config, root)
            return run(settings, checking, load)
        print("the configuration is good")
    except SettingsError as error:
        print(error, file=sys.stderr)
        return USAGE
    finally:
        end_checking(checking)
    return 0


def _parse(words: Sequence[str]) -> tuple[str | None, str, bool]:
    """Configuration, root, and whether to check only."""
    if not words:
        return None, "/", False  # as on every device: without the 5 ms that a parser takes to load
    import argparse  # noqa: PLC0415 - see above

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
    options = parser.parse_args(words)
    return options.config, options.root, options.check_config
