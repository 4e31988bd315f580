"""apt is replaced by scripts that print recorded answers: the real archive changes every day."""

import hashlib
from pathlib import Path

import pytest

from extsloader.imagebuild.debian.apt import Apt
from extsloader.imagebuild.debian.archive import choose, fetch, resolve
from extsloader.imagebuild.debian.packages import Deb
from extsloader.imagebuild.debian.recipe import Recipe, load_recipe
from extsloader.model.errors import MachineError

CONTENT = b"an archive"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LOCKED = Deb("busybox", "1:1.35.0-4", "amd64", SHA256)

APT = Apt()
DEPENDS = "busybox\n  Depends: libc6\n    Suggests: x\nlibc6\n"


def show(*debs: Deb) -> str:
    return "\n".join(
        f"Package: {d.package}\nVersion: {d.version}\nArchitecture: {d.architecture}\n"
        f"SHA256: {d.sha256}\n"
        for d in debs
    )


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return directory


@pytest.fixture
def demo(tmp_path: Path) -> Recipe:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/recipe.yaml").write_text("packages: [busybox]\nconfig: {}\n")
    return load_recipe(tmp_path / "demo")


def install(programs: Path, name: str, script: str) -> None:
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)


def offer(programs: Path, *debs: Deb) -> None:
    (programs / "show").write_text(show(*debs))
    (programs / "depends").write_text(DEPENDS)
    (programs / "pkgnames").write_text("\n".join(deb.package for deb in debs))
    install(programs, "apt-cache", f"cat {programs}/$1")


def test_a_recipe_is_resolved_to_its_closure(programs: Path, demo: Recipe) -> None:
    offer(programs, LOCKED, Deb("libc6", "2.36", "amd64", "b" * 64))
    debs = resolve(demo, APT)

    assert [deb.package for deb in debs] == ["busybox", "libc6"]


def test_apt_is_not_asked_when_the_cache_has_everything(
    programs: Path, tmp_path: Path, demo: Recipe
) -> None:
    install(programs, "apt-cache", "exit 1")
    (tmp_path / LOCKED.file_name).write_bytes(CONTENT)

    assert choose([LOCKED], tmp_path, demo, APT, allow_newer=False) == ((LOCKED,), ())
    assert fetch([LOCKED], tmp_path, APT) == 0


def test_a_version_that_has_vanished_is_an_error_that_names_the_way_out(
    programs: Path, tmp_path: Path, demo: Recipe
) -> None:
    offer(programs, Deb("busybox", "1:1.35.0-5", "amd64", "c" * 64))

    with pytest.raises(MachineError, match=r"no longer has busybox 1:1\.35\.0-4") as caught:
        choose([LOCKED], tmp_path, demo, APT, allow_newer=False)

    assert "mkext lock demo" in caught.value.problem.hint


def test_newer_versions_are_taken_when_asked_for_and_reported(
    programs: Path, tmp_path: Path, demo: Recipe
) -> None:
    newest = Deb("busybox", "1:1.35.0-6", "amd64", "d" * 64)
    kept = Deb("libc6", "2.36", "amd64", "b" * 64)
    offer(programs, newest, Deb("busybox", "1:1.35.0-5", "amd64", "c" * 64), kept)

    debs, newer = choose([LOCKED, kept], tmp_path, demo, APT, allow_newer=True)

    assert (debs, newer) == ((newest, kept), (newest,))


def test_a_name_that_is_gone_resolves_the_recipe_anew(
    programs: Path, tmp_path: Path, demo: Recipe
) -> None:
    old_kernel = Deb("linux-image-6.1.0-9-amd64", "6.1.9", "amd64", "e" * 64)
    busybox, libc = (Deb(name, "2", "amd64", "f" * 64) for name in ("busybox", "libc6"))
    offer(programs, busybox, libc)

    debs, newer = choose([old_kernel, libc], tmp_path, demo, APT, allow_newer=True)

    assert (debs, newer) == ((busybox, libc), (busybox,))
    with pytest.raises(MachineError, match=r"no longer has linux-image-6\.1\.0-9-amd64 6\.1\.9"):
        choose([old_kernel, libc], tmp_path, demo, APT, allow_newer=False)


def test_a_recipe_that_cannot_be_resolved_any_more_is_an_error(
    programs: Path, tmp_path: Path, demo: Recipe
) -> None:
    offer(programs)
    install(
        programs, "apt-cache", "[ $1 = pkgnames ] || { echo 'E: No packages found' >&2; exit 100; }"
    )

    with pytest.raises(MachineError, match="cannot resolve the packages of demo"):
        choose([LOCKED], tmp_path, demo, APT, allow_newer=True)


def test_a_download_with_another_digest_never_gets_into_the_cache(
    programs: Path, tmp_path: Path
) -> None:
    install(programs, "apt-get", f"printf evil > '{LOCKED.file_name}'")

    with pytest.raises(MachineError, match=f"E_DIGEST.*expected SHA-256 {SHA256}"):
        fetch([LOCKED], tmp_path / "debs", APT)

    assert list((tmp_path / "debs").iterdir()) == []


def test_a_good_download_is_kept(programs: Path, tmp_path: Path) -> None:
    install(
        programs,
        "apt-get",
        f'[ "$7" = "busybox=1:1.35.0-4" ] && printf "{CONTENT.decode()}" > "{LOCKED.file_name}"',
    )

    assert fetch([LOCKED], tmp_path / "debs", APT) == 1
    assert (tmp_path / "debs" / LOCKED.file_name).read_bytes() == CONTENT


def test_a_missing_program_is_an_error_that_names_its_package(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(programs))

    with pytest.raises(MachineError, match="apt-get is not installed") as caught:
        fetch([LOCKED], tmp_path / "debs", APT)

    assert caught.value.problem.hint == "apt-get install apt"


def test_what_apt_says_last_is_in_the_error(programs: Path, tmp_path: Path) -> None:
    install(programs, "apt-get", "echo 'E: no network' >&2; exit 100")

    with pytest.raises(MachineError, match="apt-get ended with 100: E: no network"):
        fetch([LOCKED], tmp_path / "debs", APT)
