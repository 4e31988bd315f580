"""How Python processes of our own are started: from our package, whatever surrounds us."""

import extsloader

OPTIONS = ("-P", "-s", "-m")
"""Python's: together with this environment they isolate as -I does, but find a package that is not
installed, too."""

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "PYTHONPATH": extsloader.__path__[0].rpartition("/")[0],
}
"""Our own package wherever it lies, and nothing from the working directory or the caller."""

HANDED_OVER = -1
"""No exit code: an agent is to be started anew in this process."""
