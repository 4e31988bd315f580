"""Where container images come from: local layouts, archives, registries; pinned by a lock file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from extsloader.imagebuild.oci.layout import DIGEST, Stored, find_digest, list_names, load_stored
from extsloader.imagebuild.tools import run_tool
from extsloader.model.errors import ImageRefusedError, MachineError, SettingsError
from extsloader.model.reasons import Code

_LINE = re.compile(rf"(\S+) ({DIGEST})")
_PINNED = re.compile(rf"(\S+)@({DIGEST})")
_HEADER = "# Made by `mkext pull --update`: reference, digest of the manifest or index.\n"
_OTHER = ("oci-archive:", "docker-archive:", "docker://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where to look."""

    cache: Path  # a layout of what was brought in
    layouts: tuple[Path, ...] = ()  # local ones, for names without a transport
    registry: str = ""  # host and path before names without a transport; "": skopeo's own rule
    insecure: bool = False  # plain HTTP, for a registry on this machine
    architecture: str = "amd64"


def parse_locks(text: str, name: str) -> dict[str, str]:
    """Digests by reference. Raises SettingsError with all wrong lines."""
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if not line.startswith("#")]
    found = {i: _LINE.fullmatch(line) for i, line in lines if line.strip()}
    wrong = [i for i, match in found.items() if match is None]
    if wrong:
        problems = (f"{name}:{i}: expected a reference and a digest" for i in wrong)
        raise SettingsError(tuple(problems))
    return {match[1]: match[2] for match in found.values() if match}


def format_locks(locks: Mapping[str, str]) -> str:
    """The content of a lock file."""
    lines = (f"{reference} {digest}\n" for reference, digest in sorted(locks.items()))
    return _HEADER + "".join(lines)


def get_image(reference: str, places: Places, locked: str = "") -> Stored:
    """Find an image, or bring it into the cache; it is the locked one where there is a lock.

    A reference may itself end with `@` and a digest. Raises ImageRefusedError, MachineError,
    SettingsError.
    """
    name, pinned = split_pinned(reference)
    stored = _find_local(name, places) or _bring_in(name, places, locked or pinned)
    for wanted in (locked, pinned):
        if wanted and stored.digest != wanted:
            raise ImageRefusedError(
                Code.DIGEST,
                f"cannot use the image {name}: {wanted} is locked, {stored.digest} got",
                "if the new one is wanted, run `mkext pull --update` and commit the lock file",
            )
    return stored


def split_pinned(reference: str) -> tuple[str, str]:
    """The reference without its own digest, and that digest; "" without one."""
    match = _PINNED.fullmatch(reference)
    return (match[1], match[2]) if match else (reference, "")


def _find_local(reference: str, places: Places) -> Stored | None:
    if reference.startswith("oci:"):
        place, _, name = reference.removeprefix("oci:").partition(":")
        return _load(Path(place), name, places, reference)
    if reference.startswith(_OTHER):
        return None
    for layout in places.layouts:
        if digest := find_digest(layout, reference):
            return load_stored(layout, digest, places.architecture)
    return None


def _load(layout: Path, name: str, places: Places, reference: str) -> Stored:
    digest = find_digest(layout, name)
    if digest is None:
        got = ", ".join(list_names(layout)) or "images without names"
        raise ImageRefusedError(
            Code.LAYOUT,
            f"cannot use the image {reference}: {name or 'one image'} expected, {got} got",
        )
    return load_stored(layout, digest, places.architecture)


def _bring_in(reference: str, places: Places, locked: str) -> Stored:
    """A locked image that the cache has needs no network."""
    source = _name_source(reference, places)
    name = sha256(f"{source} {places.architecture} {locked}".encode()).hexdigest()[:32]
    known = find_digest(places.cache, name) if (places.cache / "index.json").exists() else None
    if known is None or not locked:
        _copy(source, name, places, locked)
    stored = _load(places.cache, name, places, reference)
    if not locked or not source.startswith("docker://"):
        return stored
    # What skopeo was asked for by digest it has checked; in the layout it may have another form.
    return replace(stored, digest=locked)


def _name_source(reference: str, places: Places) -> str:
    """What skopeo is asked for; a name without a transport is a registry's."""
    if reference.startswith(_OTHER):
        return reference
    prefix = f"{places.registry.rstrip('/')}/" if places.registry else ""
    return f"docker://{prefix}{reference}"


def _copy(source: str, name: str, places: Places, locked: str) -> None:
    places.cache.mkdir(parents=True, exist_ok=True)
    if locked and source.startswith("docker://"):
        source = f"{_without_tag(source)}@{locked}"
    verify = "false" if places.insecure else "true"
    run_tool(
        [
            "skopeo", "--insecure-policy", f"--override-arch={places.architecture}",
            "--override-os=linux", "copy", "--quiet", f"--src-tls-verify={verify}",
            source, f"oci:{places.cache}:{name}",
        ],
        f"get the image {source}",
        hint="check the name and the network, or give a layout that has it with --images",
    )  # fmt: skip


def read_digest(reference: str, places: Places) -> str:
    """The digest that a registry or an archive has for a reference now. Raises MachineError."""
    source = _name_source(reference, places)
    verify = "false" if places.insecure else "true"
    argv = ["skopeo", "inspect", "--raw", f"--tls-verify={verify}", source]
    return f"sha256:{sha256(run_tool(argv, f'look up the image {source}')).hexdigest()}"


def _without_tag(source: str) -> str:
    """A colon after the last slash begins the tag; before it, a port."""
    head, slash, tail = source.rpartition("/")
    return head + slash + tail.partition("@")[0].partition(":")[0]


def get_images(
    references: Iterable[str], places: Places, locks: Mapping[str, str]
) -> dict[str, Stored]:
    """All images of a definition. Raises SettingsError that names every one that is missing."""
    found: dict[str, Stored] = {}
    problems: list[str] = []
    for reference in references:
        try:
            found[reference] = get_image(reference, places, locks.get(reference, ""))
        except (ImageRefusedError, MachineError) as error:
            problems += [str(error.problem), *([error.problem.hint] if error.problem.hint else [])]
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(tuple(problems))
    return found


def pull_images(
    references: Sequence[str], places: Places, locks: Mapping[str, str], *, update: bool
) -> dict[str, str]:
    """Bring images into the cache; returns their digests. Raises as `get_image` does."""
    digests = {}
    for reference in references:
        locked = "" if update else locks.get(reference, "")
        name, pinned = split_pinned(reference)
        known = locked or pinned or _find_local(name, places)
        if not known and not name.startswith(_OTHER[:2]):
            locked = read_digest(name, places)
        digests[reference] = get_image(reference, places, locked).digest
    return digests
