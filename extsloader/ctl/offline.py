"""The verbs that look at an image file; the daemon has no part in it."""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from extsloader.ctl.text import Style, lay_table
from extsloader.image.envelope import parse_envelope
from extsloader.image.schema import parse_manifest
from extsloader.image.superblock import reader
from extsloader.image.trailer import MAX_ENVELOPE, SIDECAR_SUFFIX, find_end, read_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.manifest import Manifest
from extsloader.model.reasons import Code, Problem
from extsloader.model.text import printable
from extsloader.verify.offline import verify_file


def look_at_image(options: argparse.Namespace) -> bool:
    """Yes when the image is good, or, for `inspect`, when its manifest can be read."""
    if options.verb == "verify":
        now = time.clock_gettime(time.CLOCK_REALTIME)
        return _print("verified", verify_file(options.image, options.keys, wall=now), options)
    return _print("not verified", _inspect(options.image), options)


def _inspect(path: str) -> Manifest | Problem:
    """What the manifest says; whether it is true is not looked at."""
    try:
        return parse_manifest(parse_envelope(_read_envelope(path)).payload)
    except ImageRefusedError as error:
        return error.problem
    except OSError as error:
        return Problem(Code.IO, f"cannot read {path}: {error.strerror}")


def show_manifest(manifest: Manifest) -> list[str]:
    """What an image says about itself."""
    fits = manifest.compatible
    facts = {
        "image": f"{manifest.name} {manifest.version}, sequence {manifest.sequence}",
        "digest": manifest.image.digest,
        "size": f"{manifest.image.size} bytes",
        "issued": manifest.issued_at,
        "expires": manifest.expires or "never",
        "for": f"{fits.arch}, {', '.join(fits.hypervisors)}",
        "core": f"{fits.core_min or 'any'} to {fits.core_max or 'any'}",
        "devices": ", ".join(fits.device_ids) or "all of this kind",
    }
    lines = [f"{name:<9} {printable(text)}" for name, text in facts.items()]
    rows = [
        (s.name, "yes" if s.essential else "no", ", ".join(s.requires) or "-", s.bundle)
        for s in manifest.services
    ]
    return [*lines, "", *lay_table(("SERVICE", "ESSENTIAL", "REQUIRES", "BUNDLE"), rows, Style())]


def _read_envelope(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        read = reader(descriptor)
        trailer = read_trailer(read, find_end(read))
    finally:
        os.close(descriptor)
    if trailer is not None:
        return trailer.envelope
    with Path(path + SIDECAR_SUFFIX).open("rb") as sidecar:
        return sidecar.read(MAX_ENVELOPE + 1)


def _print(verdict: str, found: Manifest | Problem, options: argparse.Namespace) -> bool:
    good = isinstance(found, Manifest)
    if options.json:
        member = "manifest" if good else "problem"
        print(json.dumps({"verdict": verdict if good else "refused", member: asdict(found)}))
    elif isinstance(found, Manifest):
        print("\n".join([f"{verdict}: {printable(options.image)}", *show_manifest(found)]))
    else:
        print(f"refused: {printable(found.message)} [{found.code}]")
        if found.hint:
            print(f"hint: {printable(found.hint)}", file=sys.stderr)
    return good
