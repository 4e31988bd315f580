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
from extsloader.image.envelope import parse_envelope
from extsloader.image.schema import parse_manifest
from extsloader.image.superblock import reader
from extsloader.image.trailer import find_end, read_trailer
from extsloader.image.verity import verify_tree
from extsloader.model.errors import ImageRefusedError
from extsloader.model.ids import SourceId
from extsloader.model.machine import Machine
from extsloader.model.settings import Timeouts
from extsloader.model.source import Source, SourceKind, file_generation
from extsloader.model.trust import Bounds
from extsloader.settings.load import read_settings
from extsloader.settings.start import start_checking
from extsloader.verify.medium import open_medium
from extsloader.verify.store import Pace, copy

MIB = 1 << 20
RUNS = 5


def measure() -> list[str]:
    """All measurements."""
    with tempfile.TemporaryDirectory(prefix="extsloader-bench-") as folder:
        return [
            *_attach(Path(folder, "a")),
            *_copy(Path(folder, "b")),
            *_refuse(Path(folder, "c")),
        ]


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
    pairs, costs, whole, trees = [], [], [], []
    for run in range(RUNS):
        reference = _openssl(image)
        _warm_memory(2 * image.stat().st_size)
        rate, total = asyncio.run(_verify(image, folder / f"store{run}"))
        pairs.append(rate / reference)
        costs.append(_cost(image, folder))
        whole.append(total)
        trees.append(_check_tree(image))
    busy = os.getloadavg()[0]
    return [
        f"copy while hashing, 512 MiB, against openssl dgst -sha256: {_spread(pairs)} of its speed "
        f"in {RUNS} pairs; load {busy:.1f} on {os.cpu_count()} (goal: >= 0.90)",
        f"the same by processor time, which others' load hardly changes: {_spread(costs)}",
        f"its hash tree, in one thread: {min(trees):.2f} s, the best of {RUNS}",
        f"whole helper for it (start, copy, hash tree, fsync): median "
        f"{statistics.median(whole):.2f} s",
    ]


def _spread(ratios: list[float]) -> str:
    return f"median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _cost(image: Path, folder: Path) -> float:
    """Processor time of openssl, divided by that of copying while hashing."""
    before = os.times()
    _openssl(image)
    between = os.times()
    reference = sum(between[2:4]) - sum(before[2:4])
    _warm_memory(2 * image.stat().st_size)
    size = image.stat().st_size
    with open_medium(_source(image)) as medium, (folder / "copy").open("wb", 0) as target:
        os.posix_fallocate(target.fileno(), 0, size)  # as the store does
        began = time.process_time()
        copy(medium, target.fileno(), size, Pace(1), lambda *_: None)
        spent = time.process_time() - began
    (folder / "copy").unlink()
    return reference / spent


def _check_tree(image: Path) -> float:
    with image.open("rb") as file:
        read = reader(file.fileno())
        trailer = read_trailer(read, find_end(read))
        if trailer is None:
            raise RuntimeError(f"{image} is not signed")
        manifest = parse_manifest(parse_envelope(trailer.envelope).payload)
        started = time.perf_counter()
        verify_tree(file.fileno(), manifest.image.verity)
        return time.perf_counter() - started


def _refuse(folder: Path) -> list[str]:
    """From the request to the refusal of what is no signed image, by a helper that waits for it."""
    folder.mkdir()
    image = make_image(folder, 1, padding=MIB)
    with image.open("r+b") as file:
        file.truncate(find_end(reader(file.fileno())))
    random = folder / "random"
    random.write_bytes(os.urandom(64 * MIB))
    times = {path: asyncio.run(_refusals(path, folder)) for path in (random, image)}
    return [
        f"refusal by a helper that is up, {what}: median {statistics.median(times[path]):.0f} ms "
        f"of {2 * RUNS} ({min(times[path]):.0f} to {max(times[path]):.0f}; goal: 50 ms)"
        for what, path in (("random bytes", random), ("a squashfs without signature", image))
    ]


async def _refusals(path: Path, folder: Path) -> list[float]:
    """Milliseconds, each by a fork of a process that has loaded all it needs."""
    verifier = _verifier(folder / "keys", folder / "store")
    checking = start_checking(None, str(folder))
    read_settings(checking)
    process, channel = checking
    wchan = Path(f"/proc/{process.pid}/wchan")
    while "poll" not in wchan.read_text():  # noqa: ASYNC110 - nothing else runs here
        await asyncio.sleep(0.01)
    channel.setblocking(False)
    verifier.keep(process, channel)
    try:
        return [await _refusal(verifier, path) for _ in range(2 * RUNS)]
    finally:
        process.kill()


async def _refusal(verifier: Verifier, path: Path) -> float:
    started = time.perf_counter()
    try:
        await verifier.verify(_source(path), Bounds(), lambda *_: None)
    except ImageRefusedError:
        return (time.perf_counter() - started) * 1000
    raise RuntimeError(f"{path} was accepted")


def _warm_memory(size: int) -> None:
    """Touch free memory: in a virtual machine, pages may have to come from the hypervisor first.

    That costs more than the copy and would be charged to us alone: openssl writes nothing.
    """
    bytearray(size)[::4096] = bytes(-(-size // 4096))


async def _verify(image: Path, store: Path) -> tuple[float, float]:
    """Bytes a second from the first to the last progress report, and seconds in all."""
    marks: list[tuple[float, int]] = []
    verifier = _verifier(image.parent / "keys", store)
    started = time.perf_counter()
    stored, descriptor = await verifier.verify(
        _source(image), Bounds(), lambda done, _: marks.append((time.perf_counter(), done))
    )
    total = time.perf_counter() - started
    os.close(descriptor)
    Path(stored.path).unlink()
    (first, some), (last, most) = marks[0], marks[-1]
    return (most - some) / (last - first), total


def _verifier(keys: Path, store: Path) -> Verifier:
    store.mkdir(exist_ok=True)
    return Verifier(
        keys=str(keys),
        store=str(store),
        machine=Machine(arch="amd64"),
        timeouts=Timeouts(),
        files=(),
        wall=time.time,
        python=sys.executable,
    )


def _source(image: Path) -> Source:
    status = image.stat()
    generation = file_generation(status.st_ino, status.st_size, status.st_ctime_ns)
    return Source(id=SourceId(str(image), generation), kind=SourceKind.FILE, size=status.st_size)


def _openssl(image: Path) -> float:
    """Bytes a second of `openssl dgst -sha256` on the cached file, its start included."""
    started = time.perf_counter()
    out = subprocess.check_output(["openssl", "dgst", "-sha256", image], text=True)
    if not re.search(r"= [0-9a-f]{64}$", out.strip()):
        raise RuntimeError(out)
    return image.stat().st_size / (time.perf_counter() - started)
