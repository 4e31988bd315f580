"""`python -m extsloader.verify verify|probe`: one job for the daemon, then the process ends."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from extsloader.model.helper import Answer, Request
from extsloader.verify.channel import Handler, serve
from extsloader.verify.pipeline import verify
from extsloader.verify.probe import probe_source


def main(job: str) -> int:
    """Do the job that is asked for on standard input; the exit status."""
    Path("/proc/self/comm").write_text(f"extsl-{job}")  # a fork has the other one's command line
    return serve(JOBS[job])


def _verify(request: Request, progress: Callable[[int, int], None]) -> tuple[Answer, Sequence[int]]:
    image, descriptor = verify(request, progress)
    return Answer(verified=image), (descriptor,)


def _probe(request: Request, _progress: Callable[[int, int], None]) -> tuple[Answer, Sequence[int]]:
    return Answer(superblock=probe_source(request.source, request.files)), ()


JOBS: dict[str, Handler] = {"verify": _verify, "probe": _probe}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
