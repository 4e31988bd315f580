"""The verbs that look at an image file; the daemon has no part in it."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from extsloader.core import event_log
from extsloader.ctl.listing import find_warnings
from extsloader.ctl.text import Style, lay_table
from extsloader.image.envelope import parse_envelope
from extsloader.image.schema import parse_manifest
from extsloader.image.trailer import MAX_ENVELOPE, SIDECAR_SUFFIX, load_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.manifest import StoredImage
from extsloader.model.measurement import BANK, PCR
from extsloader.model.reasons import Code, Problem
from extsloader.model.text import printable
from extsloader.verify.offline import verify_file

SHOWN_KEY = 12  # characters of a key id
VERIFIED = "verified"


def look_at_image(options: argparse.Namespace) -> bool:
    """Yes when the image is good, or, for `inspect`, when its manifest can be read."""
    if options.verb == "verify":
        now = time.clock_gettime(time.CLOCK_REALTIME)
        found = verify_file(options.image, options.keys, root_hash=options.root_hash, wall=now)
        return _print(VERIFIED, found, options)
    return _print("not verified", read_image(options.image), options)


def predict_register(options: argparse.Namespace) -> bool:
    """Yes when the image is good: a device measures no other."""
    found = verify_file(options.image, options.keys, root_hash=options.root_hash)
    if isinstance(found, Problem):
        return _print("", found, options)
    facts = {
        "pcr": PCR,
        "bank": BANK,
        "event": event_log.describe(found.digest),
        "digest": event_log.digest_of(found.digest).hex(),
        "value": event_log.extend(event_log.START, found.digest).hex(),
    }
    if options.json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{name:<9} {fact}" for name, fact in facts.items()))
    return True


def read_image(path: str) -> StoredImage | Problem:
    """What the image says of itself; whether it is true is not looked at."""
    try:
        envelope = parse_envelope(_read_envelope(path))
        manifest = parse_manifest(envelope.payload)
        claimed = tuple(signature.key_id for signature in envelope.signatures)
        return StoredImage(manifest=manifest, path=path, key_ids=claimed)
    except ImageRefusedError as error:
        return error.problem
    except OSError as error:
        return Problem(Code.IO, f"cannot read {path}: {error.strerror}")


def show_image(image: StoredImage) -> list[str]:
    """What an image says about itself."""
    manifest = image.manifest
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
        (
            s.name,
            "yes" if s.essential else "no",
            s.profile or "device's",
            ", ".join(s.requires) or "-",
            s.bundle,
        )
        for s in manifest.services
    ]
    columns = ("SERVICE", "ESSENTIAL", "PROFILE", "REQUIRES", "BUNDLE")
    return [*lines, "", *lay_table(columns, rows, Style())]


def show_signers(image: StoredImage, *, verified: bool) -> str:
    """Who has signed; key ids in an envelope that was not verified are what anybody may write."""
    names = ", ".join(key_id[:SHOWN_KEY] for key_id in image.key_ids) or "nobody"
    if not verified:
        return f"claims to be signed by {names}"
    return f"signed by {names} (keys that count: {len(image.key_ids)}, key epoch {image.key_epoch})"


def _read_envelope(path: str) -> bytes:
    trailer = load_trailer(path)
    if trailer is not None:
        return trailer.envelope
    with Path(path + SIDECAR_SUFFIX).open("rb") as sidecar:
        return sidecar.read(MAX_ENVELOPE + 1)


def _print(verdict: str, found: StoredImage | Problem, options: argparse.Namespace) -> bool:
    good = isinstance(found, StoredImage)
    # Only what is signed: the tool that lists it has no confinement.
    warnings = find_warnings(options.image) if good and verdict == VERIFIED else []
    if options.json:
        print(json.dumps(_members(verdict, found) | ({"warnings": warnings} if warnings else {})))
    elif isinstance(found, StoredImage):
        signers = show_signers(found, verified=verdict == VERIFIED)
        lines = [f"{verdict}: {printable(options.image)}", printable(signers)]
        told = [f"warning: {printable(text)}" for text in warnings]
        print("\n".join([*lines, *told, *show_image(found)]))
    else:
        print_refusal(found)
    return good


def print_refusal(problem: Problem) -> None:
    """Why not, and what to do."""
    print(f"refused: {printable(problem.message)} [{problem.code}]")
    if problem.hint:
        print(f"hint: {printable(problem.hint)}", file=sys.stderr)


def _members(verdict: str, found: StoredImage | Problem) -> dict[str, object]:
    if isinstance(found, Problem):
        return {"verdict": "refused", "problem": asdict(found)}
    epoch = {"key_epoch": found.key_epoch} if verdict == VERIFIED else {}
    return {
        "verdict": verdict,
        "keys": found.key_ids,
        **epoch,
        "manifest": asdict(found.manifest),
    }
