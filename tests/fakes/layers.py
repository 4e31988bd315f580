"""Tar files of layers, member by member, as honest and hostile builders write them."""

import tarfile
from io import BytesIO


def member(name: str, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.mode = 0o644
    for key, value in fields.items():
        setattr(found, key, value)
    return found


def file(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, size=len(content), **fields), content


def directory(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=0o755), b""


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target), b""


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target), b""


def raw_header(
    name: str, kind: bytes, size: bytes = b"00000000000\0", *, extended: bool = False
) -> bytes:
    """A header whose size is as given, with the right checksum."""
    raw = bytearray(member(name).tobuf(tarfile.GNU_FORMAT))
    raw[124:136], raw[148:156], raw[156:157], raw[482] = size, b" " * 8, kind, extended
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def pack(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, BytesIO(content))
    return out.getvalue()
