"""From a squashfs, or a directory, to a signed image."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.image.envelope import Signature, build_envelope, parse_envelope
from extsloader.image.signing import sign
from extsloader.image.superblock import read_squashfs, reader
from extsloader.image.trailer import append_trailer, load_trailer
from extsloader.image.verity import (
    ALGORITHM,
    BLOCK,
    append_tree,
    build_tree,
    image_size,
    read_superblock,
    round_up,
)
from extsloader.imagebuild.manifest import Identity, Json, make_manifest
from extsloader.imagebuild.squashfs import squash_tree
from extsloader.model.errors import ImageRefusedError
from extsloader.model.ids import Digest
from extsloader.model.manifest import Compatible, ImageSpec, Verity
from extsloader.model.reasons import Code

TEST_IDENTITY = Identity(
    name="test", version="1", compatible=Compatible(arch="amd64", hypervisors=("kvm",))
)
"""For images whose identity does not matter."""


def build_image(
    tree: Path,
    services: Iterable[Json],
    out: Path,
    keys: Sequence[Ed25519PrivateKey],
    identity: Identity = TEST_IDENTITY,
) -> bytes:
    """Make a signed image of a directory that is laid out already; returns its manifest.

    A service has at least `name` and `bundle`. Raises MachineError, SettingsError.
    """
    out.unlink(missing_ok=True)
    squash_tree(tree, out)
    add_verity(out)
    manifest = make_manifest(measure_image(out), services, identity)
    sign_image(out, manifest, keys)
    return manifest


def add_verity(path: Path) -> None:
    """Append the hash tree; salt and UUID follow from the content, so that the bytes do.

    The salt need not be secret: it only keeps hashes of different images apart.
    Raises ImageRefusedError when there is no squashfs, OSError.
    """
    content = _digest(path, _squashfs_size(path))
    append_tree(str(path), salt=bytes.fromhex(content), uuid=uuid5(NAMESPACE_URL, content))


def measure_image(path: Path) -> ImageSpec:
    """Facts about the bytes before the trailer.

    Raises ImageRefusedError when squashfs or hash tree are missing, OSError.
    """
    offset = round_up(_squashfs_size(path))
    blocks = offset // BLOCK
    with path.open("rb") as file:
        superblock = read_superblock(reader(file.fileno()), offset)
        if superblock is None:
            raise ImageRefusedError(
                Code.VERITY,
                f"cannot describe {path}: it has no hash tree",
                f"run `mkext verity {path}`",
            )
        _, root = build_tree(file.fileno(), blocks, superblock.salt)
    size = image_size(blocks)
    return ImageSpec(
        size=size,
        digest=Digest(_digest(path, size)),
        format="squashfs",
        verity=Verity(
            algorithm=ALGORITHM,
            root_hash=root.hex(),
            salt=superblock.salt.hex(),
            block_size=BLOCK,
            data_blocks=blocks,
            hash_offset=offset,
        ),
    )


def _squashfs_size(path: Path) -> int:
    with path.open("rb") as file:
        squashfs = read_squashfs(reader(file.fileno()))
    if squashfs is None:
        raise ImageRefusedError(Code.FS_TYPE, f"cannot use {path}: it is no squashfs")
    return squashfs.used


def _digest(path: Path, size: int) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while size and (part := file.read(min(size, 1 << 20))):
            digest.update(part)
            size -= len(part)
    return digest.hexdigest()


def sign_image(
    path: Path,
    manifest: bytes,
    keys: Sequence[Ed25519PrivateKey],
    others: Sequence[Signature] = (),
) -> bytes:
    """Sign the manifest and append it, beside signatures that others have made.

    Returns the envelope. Ed25519 draws no dice (RFC 8032): signing twice gives the same bytes.
    """
    own = parse_envelope(sign(manifest, keys)).signatures
    envelope = build_envelope(manifest, dict.fromkeys((*others, *own)))
    append_trailer(str(path), envelope)
    return envelope


def read_signed(path: Path) -> tuple[bytes, tuple[Signature, ...]]:
    """The manifest that an image carries, and who has signed it so far.

    Raises ImageRefusedError without one, OSError.
    """
    trailer = load_trailer(str(path))
    if trailer is None:
        raise ImageRefusedError(
            Code.ENVELOPE,
            f"cannot sign {path}: it carries no manifest",
            "give one with --manifest; `mkext manifest` writes it",
        )
    envelope = parse_envelope(trailer.envelope)
    return envelope.payload, envelope.signatures
