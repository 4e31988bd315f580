"""`plan IMAGE`: what would happen on a device, told from the manifest alone; nothing is done."""

import argparse
import json
from dataclasses import asdict

from extsloader.core.forecast import Start, find_critical_path, foretell
from extsloader.core.graph import find_cycle
from extsloader.ctl.offline import print_refusal, read_image
from extsloader.ctl.text import Style, format_duration, lay_table
from extsloader.model.manifest import Manifest
from extsloader.model.reasons import Code, Problem
from extsloader.model.text import printable


def show_plan(options: argparse.Namespace) -> bool:
    """Yes when there is an order in which they can be started."""
    found = read_image(options.image)
    if not isinstance(found, Problem):
        problem = _find_circle(found.manifest)
        if not problem:
            _print(found.manifest, foretell(found.manifest.services), as_json=bool(options.json))
            return True
        found = problem
    if options.json:
        print(json.dumps({"problem": asdict(found)}))
    else:
        print_refusal(found)
    return False


def _find_circle(manifest: Manifest) -> Problem | None:
    if not (cycle := find_cycle(manifest.services)):
        return None
    return Problem(Code.DAG, f"cannot plan: services need each other, {' -> '.join(cycle)}")


def _print(manifest: Manifest, starts: tuple[Start, ...], *, as_json: bool) -> None:
    path = find_critical_path(starts)
    if as_json:
        services = [asdict(start) for start in starts]
        print(json.dumps({"services": services, "critical_path": path}))
        return
    seconds = max((start.seconds for start in starts), default=0.0)
    steps = max((start.step for start in starts), default=0)
    specs = {service.name: service for service in manifest.services}
    rows = [
        (
            str(start.step),
            start.name,
            "yes" if specs[start.name].essential else "no",
            start.behind or "-",
            format_duration(start.seconds),
            "; ".join(start.deferred) or "-",
        )
        for start in starts
    ]
    columns = (">STEP", "SERVICE", "ESSENTIAL", "BEHIND", ">AT MOST", "DEFERRED OR SKIPPED")
    lines = [
        f"not verified: {manifest.name} {manifest.version}, {len(starts)} services, {steps} steps",
        f"critical path: {' -> '.join(path) or '-'}, waits {format_duration(seconds)} at most",
    ]
    print("\n".join([*map(printable, lines), "", *lay_table(columns, rows, Style())]))
