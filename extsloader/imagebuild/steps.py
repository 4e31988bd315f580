"""Steps whose output is named by its inputs: done once, kept, and resumed where a build stopped."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

from extsloader.imagebuild.tree import Node, split_content

_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One file to make from inputs that are known before anything is done."""

    title: str
    output: Path  # <name>.<inputs>.<suffix>
    make: Callable[[Path], None]  # writes to the path that it is given


def run_steps(steps: Iterable[Step]) -> None:
    """Do the steps in order and print a line for each. An output appears only when it is whole."""
    for step in steps:
        if step.output.exists():
            print(f"{step.title:<40} unchanged", flush=True)
            continue
        with timed(step.title):
            step.output.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(step.output) as unfinished:
                step.make(unfinished)
                _forget_older(step.output)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that gets its name only when all of it is there."""
    unfinished = path.with_name(f".{path.name}{_UNFINISHED}")
    unfinished.unlink(missing_ok=True)  # of a build that was killed
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def name_whole(unfinished: Path) -> str:
    """What a file will be called, for people."""
    return unfinished.name.removeprefix(".").removesuffix(_UNFINISHED)


def _forget_older(output: Path) -> None:
    name, _, suffix = output.name.split(".")
    for older in output.parent.glob(f"{name}.*.{suffix}"):
        older.unlink()


PROGRESS: ContextVar[bool] = ContextVar("PROGRESS", default=False)
"""Whether somebody watches: then a step that takes its time shows for how long."""

_TICK = 0.2  # seconds


@contextmanager
def _ticking(title: str, start: float) -> Iterator[None]:
    done = Event()

    def tick() -> None:
        while not done.wait(_TICK):
            print(f"{title:<40} {perf_counter() - start:.1f} s ...", end="\r", flush=True)

    thread = Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Print what is being done, and how long it took."""
    start = perf_counter()
    with _ticking(title, start) if PROGRESS.get() else nullcontext():
        yield
    print(f"{title:<40} {perf_counter() - start:.2f} s", flush=True)


def name_by(*inputs: object) -> str:
    """A name for everything that depends on these inputs, and on this program, alone."""
    text = json.dumps([_builder(), *inputs], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def digest_tree(tree: Mapping[str, Node]) -> str:
    """A digest of a tree's paths, kinds, modes and contents."""
    digest = sha256()
    for path in sorted(tree):
        node = tree[path]
        digest.update(f"{path}\0{node.kind}{node.mode}{node.target}{len(node.content)}\0".encode())
        for chunk in split_content(node):
            digest.update(chunk)
    return digest.hexdigest()


@cache
def _builder() -> str:
    """Changing the builder's own code changes every name, so that no stale output is kept."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
