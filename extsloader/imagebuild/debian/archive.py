"""The Debian archive through apt: what it offers, and a cache of the archives we locked."""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from extsloader.imagebuild.debian.apt import Apt
from extsloader.imagebuild.debian.packages import Deb, close, parse_depends, parse_show
from extsloader.imagebuild.debian.recipe import Recipe
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_ONLY_DEPENDS = tuple(
    f"--no-{kind}"
    for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
)


def resolve(recipe: Recipe, apt: Apt) -> tuple[Deb, ...]:
    """The closure of a recipe at the versions that apt would install now. Raises MachineError."""
    stage = f"resolve the packages of {recipe.name}"
    hint = "run `apt-get update`, and check the names in the recipe"
    text = apt.run(
        ["apt-cache", "depends", "--recurse", *_ONLY_DEPENDS, *recipe.packages], stage, hint=hint
    ).decode()
    names = close(recipe.packages, recipe.exclude, parse_depends(text))
    shown = apt.run(["apt-cache", "show", "--no-all-versions", *names], stage, hint=hint)
    return tuple(sorted(parse_show(shown.decode())))


def choose(
    debs: Sequence[Deb], cache: Path, recipe: Recipe, apt: Apt, *, allow_newer: bool
) -> tuple[tuple[Deb, ...], tuple[Deb, ...]]:
    """Replace what is neither cached nor offered any more; returns all debs, then the new ones.

    Where even a name is gone (a kernel's package has its version in its name), all of the recipe
    is resolved anew. Raises MachineError unless newer ones are allowed.
    """
    missing = [deb for deb in debs if not (cache / deb.file_name).exists()]
    if not missing:
        return tuple(debs), ()
    offered = _list_offers([deb.package for deb in missing], recipe.name, apt)
    gone = [deb for deb in missing if deb not in offered]
    if gone and not allow_newer:
        raise MachineError(
            Code.IO,
            f"fetch the packages of {recipe.name}",
            "the archive no longer has " + ", ".join(f"{d.package} {d.version}" for d in gone),
            f"run `mkext lock {recipe.name}` and commit the new lock, or pass --allow-newer",
        )
    newest = {deb.package: deb for deb in reversed(offered)}  # apt shows its favourite first
    if any(deb.package not in newest for deb in gone):
        chosen = resolve(recipe, apt)
        return chosen, tuple(deb for deb in chosen if deb not in debs)
    chosen = tuple(newest[deb.package] if deb in gone else deb for deb in debs)
    return chosen, tuple(newest[deb.package] for deb in gone)


def _list_offers(packages: Sequence[str], recipe: str, apt: Apt) -> tuple[Deb, ...]:
    """What apt has of these names; `apt-cache show` fails for one that it does not know."""
    stage, hint = f"look up the packages of {recipe}", "run `apt-get update`"
    known = set(apt.run(["apt-cache", "pkgnames"], stage, hint=hint).decode().split())
    names = [name for name in packages if name in known]
    if not names:
        return ()
    return parse_show(apt.run(["apt-cache", "show", *names], stage, hint=hint).decode())


def fetch(debs: Iterable[Deb], cache: Path, apt: Apt) -> int:
    """Download what the cache lacks and check its digest; returns how many that were.

    Raises MachineError(E_IO, E_DIGEST); archives that arrived whole stay in the cache.
    """
    missing = [deb for deb in debs if not (cache / deb.file_name).exists()]
    if not missing:
        return 0
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="incoming-") as incoming:
        apt.run(
            [
                "apt-get", "-qq", "-o", "Acquire::Retries=3",
                # apt's own unprivileged user may not write below our cache (apt.conf(5)).
                "-o", "APT::Sandbox::User=root",
                "download", *(f"{deb.package}={deb.version}" for deb in missing),
            ],
            "download packages", cwd=Path(incoming),
            hint="check the network and run `apt-get update`",
        )  # fmt: skip
        for deb in missing:
            _keep(Path(incoming) / deb.file_name, deb, cache)
    return len(missing)


def _keep(arrived: Path, deb: Deb, cache: Path) -> None:
    check_digest(arrived, deb)
    arrived.replace(cache / deb.file_name)


def check_digest(path: Path, deb: Deb) -> None:
    """Raise MachineError(E_DIGEST) unless the file is the archive that was locked."""
    try:
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MachineError(
            Code.IO, f"read the package {path}", error.strerror or "unknown"
        ) from error
    if got != deb.sha256:
        raise MachineError(
            Code.DIGEST,
            f"use {path.name}",
            f"expected SHA-256 {deb.sha256}, got {got}",
            f"delete {path}, or run `mkext lock` if the archive was republished",
        )
