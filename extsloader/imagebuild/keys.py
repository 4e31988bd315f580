"""Ed25519 key pairs for signing images."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code


def make_keys(directory: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.key` (private, mode 0600) and `<name>.pem` (public); returns both paths.

    Raises MachineError(E_KEYS) when one is there: overwriting a key would strand devices.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    directory.mkdir(parents=True, exist_ok=True)
    paths = directory / f"{name}.key", directory / f"{name}.pem"
    if there := [str(path) for path in paths if path.exists()]:
        raise MachineError(
            Code.KEYS,
            f"write {' and '.join(there)}",
            "it is there already",
            "choose another --name, or delete the old keys if no device trusts them",
        )
    for path, content, mode in zip(paths, (private, public), (0o600, 0o644), strict=True):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    return paths
