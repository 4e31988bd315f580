"""Container images in a directory: the OCI image layout (image-spec 1.0, "image-layout.md").

Every blob is checked against the digest and size that name it, before anything of it is used.
"""

import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extsloader.imagebuild.linuxkit.describe import load_image_config
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.imagebuild.squashfs import EPOCH
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

MAX_JSON = 4 << 20  # bytes, as registries limit manifests
MAX_DEPTH = 4  # of indexes in indexes
REF_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")

_OCI = "application/vnd.oci.image"
_INDEXES = (f"{_OCI}.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = (f"{_OCI}.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_HASHES = {"sha256": 64, "sha512": 128}  # hex digits

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of the layout, by what names it (image-spec, "descriptor.md")."""

    digest: str  # algorithm:hex
    size: int  # bytes
    media_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: the blob, and the digest of its uncompressed tar file."""

    blob: Blob
    diff_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An image of one architecture in a layout."""

    layout: Path
    digest: str  # of what the layout's index names: a manifest, or an index of several
    config: ImageConfig
    layers: tuple[Layer, ...]


def find_digest(layout: Path, name: str) -> str | None:
    """The digest of what is called `name`, of the only image for ""; None without it.

    Raises ImageRefusedError.
    """
    entries = _index(layout).get("manifests", [])
    if not name:
        return _blob(entries[0], layout).digest if len(entries) == 1 else None
    for entry in entries:
        names = (entry.get("annotations") or {}).get
        if any(names(key) == name for key in REF_NAMES):
            return _blob(entry, layout).digest
    return None


def list_names(layout: Path) -> list[str]:
    """All names in a layout. Raises ImageRefusedError."""
    entries = _index(layout).get("manifests", [])
    notes = [entry.get("annotations") or {} for entry in entries]
    return sorted({note[key] for note in notes for key in REF_NAMES if key in note})


def load_stored(layout: Path, digest: str, architecture: str) -> Stored:
    """Read configuration and layers of an image. Raises ImageRefusedError, SettingsError."""
    entries = _index(layout).get("manifests", [])
    entry = next(entry for entry in entries if entry.get("digest") == digest)
    manifest = _find_manifest(layout, _blob(entry, layout), architecture)
    config = _blob(manifest.get("config") or {}, layout)
    details = _read_json(layout, config)
    layers = [_blob(layer, layout) for layer in manifest.get("layers") or ()]
    diff_ids = (details.get("rootfs") or {}).get("diff_ids") or []
    if len(layers) != len(diff_ids):
        raise _refuse(layout, f"{len(diff_ids)} layers are configured, {len(layers)} are there")
    return Stored(
        layout=layout,
        digest=digest,
        config=load_image_config(blob_path(layout, config), None),
        layers=tuple(
            Layer(blob=layer, diff_id=_check_digest(diff_id, layout))
            for layer, diff_id in zip(layers, diff_ids, strict=True)
        ),
    )


def blob_path(layout: Path, blob: Blob) -> Path:
    """Where a blob is; its digest has been checked for its form."""
    algorithm, _, hexadecimal = blob.digest.partition(":")
    return layout / "blobs" / algorithm / hexadecimal


def _find_manifest(layout: Path, blob: Blob, architecture: str) -> Json:
    for _ in range(MAX_DEPTH):
        document = _read_json(layout, blob)
        kind = document.get("mediaType") or blob.media_type
        if kind in _MANIFESTS or ("layers" in document and kind not in _INDEXES):
            return document
        blob = _blob(_choose(document, architecture, layout), layout)
    raise _refuse(layout, f"indexes are nested deeper than {MAX_DEPTH}")


def _choose(index: Json, architecture: str, layout: Path) -> Json:
    entries: list[Json] = index.get("manifests") or []
    platforms = [entry.get("platform") or {} for entry in entries]
    for entry, platform in zip(entries, platforms, strict=True):
        if (platform.get("os", "linux"), platform.get("architecture")) == ("linux", architecture):
            return entry
    got = ", ".join(str(platform.get("architecture")) for platform in platforms) or "nothing"
    raise _refuse(layout, f"an image for {architecture} expected, for {got} got")


def _index(layout: Path) -> Json:
    return _parse(_read(layout / "index.json", layout), layout)


def _read_json(layout: Path, blob: Blob) -> Json:
    raw = _read(blob_path(layout, blob), layout)
    algorithm, _, expected = blob.digest.partition(":")
    got = hashlib.new(algorithm, raw).hexdigest()
    if got != expected:
        raise ImageRefusedError(
            Code.DIGEST, f"cannot use {layout}: {algorithm} {expected} expected, {got} got"
        )
    return _parse(raw, layout)


def _read(path: Path, layout: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_JSON + 1)
    except OSError as error:
        raise _refuse(layout, f"{path.name}: {str(error.strerror).lower()}") from error
    if len(raw) > MAX_JSON:
        raise ImageRefusedError(Code.LIMIT, f"cannot use {path}: larger than {MAX_JSON} bytes")
    return raw


def _parse(raw: bytes, layout: Path) -> Json:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _refuse(layout, f"expected JSON, got {error}") from error
    if not isinstance(document, dict):
        raise _refuse(layout, "expected a JSON object")
    return document


def _blob(entry: Json, layout: Path) -> Blob:
    digest, size = entry.get("digest"), entry.get("size")
    if not isinstance(size, int) or size < 0:
        raise _refuse(layout, f"expected the size of a blob, got {size!r}")
    kind = str(entry.get("mediaType", ""))
    return Blob(digest=_check_digest(digest, layout), size=size, media_type=kind)


def _check_digest(digest: object, layout: Path) -> str:
    """Digests become paths, so their form matters."""
    text = digest if isinstance(digest, str) else ""
    algorithm, _, hexadecimal = text.partition(":")
    if len(hexadecimal) != _HASHES.get(algorithm) or set(hexadecimal) - set("0123456789abcdef"):
        raise _refuse(layout, f"expected a digest such as sha256:..., got {digest!r}")
    return text


def _refuse(layout: Path, reason: str) -> ImageRefusedError:
    return ImageRefusedError(Code.LAYOUT, f"cannot use the image in {layout}: {reason}")


def write_image(
    layout: Path, name: str, tar: Path, config: Mapping[str, Any], architecture: str
) -> str:
    """Add an image of one layer to a layout; the same bytes for the same tar file.

    `config` is the `config` of image-spec's "config.md". Returns the digest of the manifest.
    """
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    with tar.open("rb") as file:
        diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    layer = _compress(layout, tar)
    details = {
        "architecture": architecture,
        "config": dict(config),
        "created": "2017-04-18T16:30:00Z",
        "os": "linux",
        "rootfs": {"diff_ids": [diff_id], "type": "layers"},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFESTS[0],
        "config": _add_json(layout, details, f"{_OCI}.config.v1+json"),
        "layers": [layer],
    }
    entry = _add_json(layout, manifest, _MANIFESTS[0])
    entry |= {
        "annotations": {REF_NAMES[0]: name},
        "platform": {"architecture": architecture, "os": "linux"},
    }
    _add_entry(layout, entry)
    return str(entry["digest"])


def _compress(layout: Path, tar: Path) -> Json:
    unfinished = layout / ".layer.unfinished"
    with (
        tar.open("rb") as source,
        unfinished.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=EPOCH) as out,
    ):
        shutil.copyfileobj(source, out, 1 << 20)
    with unfinished.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = unfinished.stat().st_size
    unfinished.replace(layout / "blobs/sha256" / digest)
    return {"mediaType": f"{_OCI}.layer.v1.tar+gzip", "digest": f"sha256:{digest}", "size": size}


def _add_json(layout: Path, document: Json, media_type: str) -> Json:
    raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(raw)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw)}


def _add_entry(layout: Path, entry: Json) -> None:
    path = layout / "index.json"
    index: Json = _index(layout) if path.exists() else {"schemaVersion": 2, "manifests": []}
    name = entry["annotations"][REF_NAMES[0]]
    others = [
        old
        for old in index["manifests"]
        if (old.get("annotations") or {}).get(REF_NAMES[0]) != name
    ]
    manifests = sorted([*others, entry], key=lambda e: e["annotations"][REF_NAMES[0]])
    path.write_text(json.dumps(index | {"manifests": manifests}, sort_keys=True))
