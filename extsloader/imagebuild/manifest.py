"""The manifest of an image: what authors wrote about services, and the facts of the bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from extsloader.core.graph import find_cycle
from extsloader.image.schema import SCHEMA, encode_manifest, find_problems, parse_manifest
from extsloader.image.verity import ALGORITHM, BLOCK
from extsloader.imagebuild.linuxkit.bundles import SERVICES
from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.yamlfile import load_yaml
from extsloader.model.errors import SettingsError
from extsloader.model.ids import Digest
from extsloader.model.manifest import Compatible, ImageSpec, Verity

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the manifest says about the image as a whole."""

    name: str
    version: str
    sequence: int = 1  # of several images a device takes the highest
    issued_at: int = EPOCH  # seconds since 1970
    expires: str = ""  # RFC 3339 with Z
    compatible: Compatible


PLACEHOLDER = ImageSpec(
    size=2 * BLOCK,
    digest=Digest("0" * 64),
    format="squashfs",
    verity=Verity(
        algorithm=ALGORITHM,
        root_hash="0" * 64,
        salt="",
        block_size=BLOCK,
        data_blocks=1,
        hash_offset=BLOCK,
    ),
)
"""Stands for the image where only what people wrote is checked."""


def make_manifest(
    image: ImageSpec, services: Iterable[Json], identity: Identity, problems: Iterable[str] = ()
) -> bytes:
    """The bytes to sign, with every default filled in: what was signed cannot change later.

    Raises SettingsError with all problems, those that were known before included.
    """
    issued_at = datetime.fromtimestamp(identity.issued_at, UTC)
    document = {
        "schema": SCHEMA,
        "name": identity.name,
        "version": identity.version,
        "sequence": identity.sequence,
        "issued_at": issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expires": identity.expires,
        "image": msgspec.to_builtins(image),
        "compatible": msgspec.to_builtins(identity.compatible),
        "services": list(services),
    }
    found = (*problems, *(sentence for _, sentence in find_problems(document)))
    if found:
        raise SettingsError(found)
    manifest = parse_manifest(json.dumps(document).encode())
    if cycle := find_cycle(manifest.services):
        raise SettingsError((f"services depend on each other in a circle: {' -> '.join(cycle)}",))
    return encode_manifest(manifest)


def load_services(directory: Path, names: Sequence[str]) -> tuple[list[Json], list[str]]:
    """Read `<name>.yaml` of each service; returns the services and what is wrong with the files."""
    services: list[Json] = []
    problems = [
        f"{path}: the image definition has no service {path.stem}"
        for path in sorted(directory.glob("*.yaml"))
        if path.stem not in names
    ]
    for name in names:
        try:
            services.append(_load_service(directory / f"{name}.yaml", name))
        except SettingsError as error:
            problems += error.problems
    return services, problems


def _load_service(path: Path, name: str) -> Json:
    written = load_yaml(path)
    if not isinstance(written, dict):
        raise SettingsError((f"{path}: expected keys and values",))
    derived = {"name": name, "bundle": f"{SERVICES}/{name}"}
    if taken := sorted(derived.keys() & written.keys()):
        raise SettingsError((f"{path}: leave out {' and '.join(taken)}: the file's name says it",))
    return derived | written
