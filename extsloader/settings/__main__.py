"""`python -m extsloader.settings [--config FILE] [--root DIR]`: settings or problems as JSON.

A process of its own, because pydantic costs the daemon 10 MB for one second's work.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict

from extsloader.settings.check import check


def main() -> int:
    """Exit code 0 with the settings, 1 with the list of all problems."""
    parser = argparse.ArgumentParser(prog="extsloader.settings")
    parser.add_argument("--config", metavar="FILE")
    parser.add_argument("--root", metavar="DIR", default="/")
    options = parser.parse_args()
    settings, problems = check(options.config, options.root, os.environ)
    if settings is None:
        sys.stdout.write(json.dumps([asdict(problem) for problem in problems]))
        return 1
    sys.stdout.write(settings.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
