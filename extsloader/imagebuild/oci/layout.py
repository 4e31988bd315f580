"""Container images in a directory: the OCI image layout (image-spec 1.0, "image-layout.md").

Every blob is checked against the digest and size that name it, before anything of it is used.
"""

import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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

DIGEST = "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"

Json = dict[str, Any]
Digest = Annotated[str, Field(pattern=f"^(?:{DIGEST})$")]
"""Digests become paths, so their form matters."""

_Model = TypeVar("_Model", bound=BaseModel)


class _Part(BaseModel):
    """A part of a document, which has many more keys than matter here."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, populate_by_name=True)


class Platform(_Part):
    """What an image runs on."""

    os: str = "linux"
    architecture: str = ""


class Blob(_Part):
    """A file of the layout, by what names it (image-spec, "descriptor.md")."""

    digest: Digest
    size: int = Field(ge=0)  # bytes
    media_type: str = Field(default="", validation_alias="mediaType")
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    @property
    def names(self) -> list[str]:
        """What the image is called."""
        notes = self.annotations or {}
        return [notes[key] for key in REF_NAMES if key in notes]


class _Document(_Part):
    """An index, which has manifests, or a manifest, which has layers."""

    media_type: str = Field(default="", validation_alias="mediaType")
    manifests: list[Blob] | None = None
    config: Blob | None = None
    layers: list[Blob] | None = None


class _RootFs(_Part):
    diff_ids: list[Digest] | None = None


class _Config(Platform):
    rootfs: _RootFs = _RootFs()


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
    entries = _list_entries(layout)
    if not name:
        return entries[0].digest if len(entries) == 1 else None
    exact = [entry for entry in entries if name in entry.names]
    same = [entry for entry in entries if any(_is_same(known, name) for known in entry.names)]
    return next((entry.digest for entry in exact + same), None)


def _is_same(known: str, name: str) -> bool:
    """LinuxKit's cache and containerd know an image by its registry, too; definitions do not."""
    registry, _, rest = known.partition("/")
    full = rest if set(registry) & set(".:") or registry == "localhost" else known
    return _shorten(name) in (_shorten(known), _shorten(full))


def _shorten(name: str) -> str:
    """Without what `docker pull` adds to a name by itself."""
    return name.removeprefix("library/").removesuffix(":latest")


def list_names(layout: Path) -> list[str]:
    """All names in a layout. Raises ImageRefusedError."""
    return sorted({name for entry in _list_entries(layout) for name in entry.names})


def load_stored(layout: Path, digest: str, architecture: str) -> Stored:
    """Read configuration and layers of an image. Raises ImageRefusedError, SettingsError."""
    entry = next(entry for entry in _list_entries(layout) if entry.digest == digest)
    manifest = _find_manifest(layout, entry, architecture)
    if manifest.config is None:
        raise _refuse(layout, "its manifest names no configuration")
    config = _parse(_Config, _read_blob(layout, manifest.config), layout)
    if config.architecture not in ("", architecture):
        raise _refuse_platform(layout, architecture, config.architecture)
    layers, diff_ids = manifest.layers or (), config.rootfs.diff_ids or ()
    if len(layers) != len(diff_ids):
        raise _refuse(layout, f"{len(diff_ids)} layers are configured, {len(layers)} are there")
    return Stored(
        layout=layout,
        digest=digest,
        config=load_image_config(blob_path(layout, manifest.config), None),
        layers=tuple(
            Layer(blob=layer, diff_id=diff_id)
            for layer, diff_id in zip(layers, diff_ids, strict=True)
        ),
    )


def blob_path(layout: Path, blob: Blob) -> Path:
    """Where a blob is."""
    algorithm, _, hexadecimal = blob.digest.partition(":")
    return layout / "blobs" / algorithm / hexadecimal


def _find_manifest(layout: Path, blob: Blob, architecture: str) -> _Document:
    for _ in range(MAX_DEPTH):
        document = _parse(_Document, _read_blob(layout, blob), layout)
        kind = document.media_type or blob.media_type
        if kind in _MANIFESTS or (document.layers is not None and kind not in _INDEXES):
            return document
        blob = _choose(document.manifests or [], architecture, layout)
    raise _refuse(layout, f"indexes are nested deeper than {MAX_DEPTH}")


def _choose(entries: Sequence[Blob], architecture: str, layout: Path) -> Blob:
    platforms = [entry.platform or Platform() for entry in entries]
    for entry, platform in zip(entries, platforms, strict=True):
        if platform == Platform(architecture=architecture):
            return entry
    got = ", ".join(platform.architecture or "unknown" for platform in platforms) or "nothing"
    raise _refuse_platform(layout, architecture, got)


def _list_entries(layout: Path) -> list[Blob]:
    raw = _read(layout / "index.json", layout)
    return _parse(_Document, raw, layout).manifests or []


def _read_blob(layout: Path, blob: Blob) -> bytes:
    raw = _read(blob_path(layout, blob), layout)
    algorithm, _, expected = blob.digest.partition(":")
    got = hashlib.new(algorithm, raw).hexdigest()
    if got != expected:
        raise _refuse(layout, f"{algorithm} {expected} expected, {got} got", Code.DIGEST)
    if len(raw) != blob.size:
        raise _refuse(layout, f"{blob.size} bytes expected, {len(raw)} got", Code.SIZE)
    return raw


def _read(path: Path, layout: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_JSON + 1)
    except OSError as error:
        raise _refuse(layout, f"{path.name}: {str(error.strerror).lower()}") from error
    if len(raw) > MAX_JSON:
        raise _refuse(layout, f"{path.name} is larger than {MAX_JSON} bytes", Code.LIMIT)
    return raw


def _parse(model: type[_Model], raw: bytes, layout: Path) -> _Model:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "JSON"
        raise _refuse(layout, f"{place}: {first['msg'].lower()}") from error


def _refuse(layout: Path, reason: str, code: Code = Code.LAYOUT) -> ImageRefusedError:
    return ImageRefusedError(code, f"cannot use the image in {layout}: {reason}")


def _refuse_platform(layout: Path, architecture: str, got: str) -> ImageRefusedError:
    reason = f"an image for {architecture} expected, for {got} got"
    return _refuse(layout, reason, Code.INCOMPATIBLE)


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
    """Whatever else the layout has stays as it is."""
    path = layout / "index.json"
    index: Json = {"schemaVersion": 2, "manifests": []}
    if path.exists():
        _list_entries(layout)  # refuses what is no index
        index |= json.loads(path.read_bytes())
    others = [old for old in index["manifests"] or () if _ref_name(old) != _ref_name(entry)]
    manifests = sorted([*others, entry], key=_ref_name)
    path.write_text(json.dumps(index | {"manifests": manifests}, sort_keys=True))


def _ref_name(entry: Json) -> str:
    return str((entry.get("annotations") or {}).get(REF_NAMES[0], ""))
