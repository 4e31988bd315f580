"""From attach to verdict, and copying while hashing against OpenSSL."""

import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.agent import running
from bench.images import make_image
from extsloader.adapters.verifier import Verifier
from extsloader.model.ids import SourceId
from extsloader.model.machine import Machine
from extsloader.model.settings import Timeouts
from extsloader.model.source import Source, SourceKind, file_generation
from extsloader.model.trust import Bounds

MIB = 1 << 20
RUNS = 5


def measure() -> list[str]:
    """Both measurements."""
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        return [*_attach(Path(folder, "a")), *_copy(Path(folder, "b"))]


def _attach(folder: Path) -> list[str]:
    """Attach to verdict of a 10 MB image, and the time that hashing it alone takes."""
    folder.mkdir()
    image = make_image(folder, 1, padding=10_000_000)
    times = []
    for run in range(RUNS):
        root = folder / f"root{run}"
        root.mkdir()
        with running(root, folder / "keys") as agent:
            agent.until(lambda status: status.state == "searching")
            started = time.perf_counter()
            with agent.attached(image):
                agent.until(lambda s: any(c.verdict == "verified" for c in s.candidates))
                times.append(time.perf_counter() - started)
    rate = _openssl(image)
    hashing = image.stat().st_size / rate
    return [
        f"attach to verdict, 10 MB image: median {statistics.median(times):.3f} s of {RUNS} "
        f"({min(times):.3f} to {max(times):.3f}); hashing it takes {hashing:.3f} s "
        "(goal: 0.5 s plus hashing)"
    ]


def _copy(folder: Path) -> list[str]:
    """Copy, hash and check 512 MB in the helper, against `openssl dgst` on the same file."""
    folder.mkdir()
    image = make_image(folder, 1, padding=512 * MIB)
    image.read_bytes()  # into the page cache, as for openssl
    reference, ours, whole = [], [], []
    for run in range(RUNS):
        reference.append(_openssl(image))
        _warm_memory(2 * image.stat().st_size)
        rate, total = asyncio.run(_verify(image, folder / f"store{run}"))
        ours.append(rate)
        whole.append(total)
    ratio = statistics.median(a / b for a, b in zip(ours, reference, strict=True))
    return [
        f"copy while hashing, 512 MiB: median {statistics.median(ours) / 1e6:.0f} MB/s; "
        f"openssl dgst -sha256 {statistics.median(reference) / 1e6:.0f} MB/s; ratio {ratio:.2f} "
        "(goal: >= 0.80)",
        f"whole helper for it (start, copy, hash tree, fsync): median "
        f"{statistics.median(whole):.2f} s",
    ]


def _warm_memory(size: int) -> None:
    """Touch free memory: in a virtual machine, pages may have to come from the hypervisor first.

    That costs more than the copy and would be charged to us alone: openssl writes nothing.
    """
    bytearray(size)[::4096] = bytes(-(-size // 4096))


async def _verify(image: Path, store: Path) -> tuple[float, float]:
    """Bytes a second from the first to the last progress report, and seconds in all."""
    marks: list[tuple[float, int]] = []
    verifier = Verifier(
        keys=str(image.parent / "keys"),
        store=str(store),
        machine=Machine(arch="amd64"),
        timeouts=Timeouts(),
        files=(),
        wall=time.time,
        python=sys.executable,
    )
    status = image.stat()
    generation = file_generation(status.st_ino, status.st_size, status.st_ctime_ns)
    source = Source(id=SourceId(str(image), generation), kind=SourceKind.FILE, size=status.st_size)
    started = time.perf_counter()
    stored, descriptor = await verifier.verify(
        source, Bounds(), lambda done, _: marks.append((time.perf_counter(), done))
    )
    total = time.perf_counter() - started
    os.close(descriptor)
    Path(stored.path).unlink()
    (first, some), (last, most) = marks[0], marks[-1]
    return (most - some) / (last - first), total


def _openssl(image: Path) -> float:
    """Bytes a second of `openssl dgst -sha256` on the cached file, its start included."""
    started = time.perf_counter()
    out = subprocess.check_output(["openssl", "dgst", "-sha256", image], text=True)
    if not re.search(r"= [0-9a-f]{64}$", out.strip()):
        raise RuntimeError(out)
    return image.stat().st_size / (time.perf_counter() - started)
