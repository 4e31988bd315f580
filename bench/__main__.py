"""`python -m bench [idle|discovery|verification|…]…`; all without a name."""

import os
import signal
import sys

from bench import boot, discovery, idle, keeping, recovery, starting, verification

CASES = {
    "idle": idle,
    "discovery": discovery,
    "verification": verification,
    "starting": starting,
    "keeping": keeping,
    "recovery": recovery,
    "boot": boot,
}


def main() -> int:
    """Print the figures; 2 for an unknown name."""
    names = sys.argv[1:] or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        print(f"cannot measure {', '.join(unknown)}: there are {', '.join(CASES)}")
        return 2
    # Whoever ends us gets mounts, loop devices and services taken away as at any other end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {os.uname().release}")
    for name in names:
        for line in CASES[name].measure():
            print(f"{name}: {line}", flush=True)
    return 0


sys.exit(main())
