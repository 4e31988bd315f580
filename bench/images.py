"""Images of services that do nothing, and keys to sign them."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extsloader.imagebuild.image import build_image

BUSYBOX = Path("/bin/busybox")

CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "args": ["/bin/busybox", "sleep", "1000000"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    },
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
    ],
    "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]},
}


def make_image(
    directory: Path,
    services: int,
    padding: int = 0,
    command: tuple[str, ...] = ("sleep", "1000000"),
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """A signed image of so many services, idle ones, and so many incompressible bytes.

    The public key is written beside it, into `keys/`.
    """
    tree = directory / "tree"
    for number in range(services):
        _lay_out(tree / "containers" / "services" / f"idle-{number}", command)
    tree.mkdir(exist_ok=True)
    (tree / "padding").write_bytes(os.urandom(padding))
    key = Ed25519PrivateKey.generate()
    (directory / "keys").mkdir()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "keys" / "bench.pem").write_bytes(pem)
    stop = {"grace": 1}  # sleep, as process 1, does not hear SIGTERM
    entries = [
        {"name": f"idle-{n}", "bundle": f"containers/services/idle-{n}", "stop": stop, **more}
        for n in range(services)
    ]
    build_image(tree, entries, directory / "image.img", [key])
    shutil.rmtree(tree)
    return directory / "image.img"


def _lay_out(bundle: Path, command: tuple[str, ...]) -> None:
    process = {**CONFIG["process"], "args": ["/bin/busybox", *command]}
    config = json.dumps({**CONFIG, "process": process})
    for name in ("bin", "dev", "proc", "sys", "etc"):
        (bundle / "lower" / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, bundle / "lower" / "bin" / "busybox")
    (bundle / "rootfs").mkdir()
    (bundle / "config.json").write_text(config, encoding="utf-8")
