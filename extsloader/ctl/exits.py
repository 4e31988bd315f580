"""Exit codes. Wrong usage is 2, which argparse does itself."""

YES = 0
NO = 1  # not ready, refused, failed, too late
UNREACHABLE = 3  # no daemon answers
INTERRUPTED = 130  # as shells have it for SIGINT
