import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.imagebuild.debian.packages import (
    Deb,
    close,
    format_lock,
    parse_depends,
    parse_lock,
    parse_show,
)
from extsloader.model.errors import SettingsError

# As `apt-cache depends --recurse` of Debian 12 prints it, shortened.
DEPENDS = """\
mosquitto
  Depends: adduser
  Depends: libcjson1
 |Depends: lsb-base
  Depends: sysvinit-utils
  PreDepends: libc6
  Depends: libsystemd0
    libelogind0
adduser
  Depends: passwd
passwd
  Depends: <debconf-2.0>
    debconf
libcjson1
  Depends: libc6
libc6
  Depends: libgcc-s1
libgcc-s1
  Depends: gcc-12-base
  Depends: libc6
"""

SHOW = f"""\
Package: mosquitto
Version: 2.0.11-1.2+deb12u2
Architecture: amd64
Depends: adduser (>= 3.10)
Filename: pool/main/m/mosquitto.deb
SHA256: {"a" * 64}
Description: broker
 Version: this line belongs to the description

Package: libtirpc-common
Version: 1:1.3.3+ds-1
Architecture: all
SHA256: {"b" * 64}

Package: only-installed
Status: install ok installed
Version: 1
Architecture: amd64
"""


def test_the_closure_follows_pre_depends_and_the_first_alternative() -> None:
    closed = close(["mosquitto"], ["adduser"], parse_depends(DEPENDS))

    assert closed == (
        *("gcc-12-base", "libc6", "libcjson1", "libgcc-s1", "libsystemd0", "lsb-base"),
        "mosquitto",
    )


def test_what_only_excluded_packages_need_is_left_out_too() -> None:
    needs = parse_depends(DEPENDS)

    assert "passwd" not in close(["mosquitto"], ["adduser"], needs)
    assert close(["libcjson1"], ["libc6"], needs) == ("libcjson1",)


def test_a_virtual_package_is_refused_because_choosing_is_the_authors_job() -> None:
    with pytest.raises(SettingsError, match=r"virtual package debconf-2\.0"):
        close(["mosquitto"], [], parse_depends(DEPENDS))


def test_a_virtual_package_is_excluded_by_its_plain_name() -> None:
    needs = {"base-files": ("<awk>", "libc6")}

    assert close(["base-files"], ["awk"], needs) == ("base-files", "libc6")


def test_packages_are_read_with_their_digests_and_installed_ones_left_out() -> None:
    assert parse_show(SHOW) == (
        Deb("mosquitto", "2.0.11-1.2+deb12u2", "amd64", "a" * 64),
        Deb("libtirpc-common", "1:1.3.3+ds-1", "all", "b" * 64),
    )


def test_archives_are_named_as_apt_names_them() -> None:
    assert parse_show(SHOW)[1].file_name == "libtirpc-common_1%3a1.3.3+ds-1_all.deb"


words = st.from_regex(r"[a-z0-9][a-z0-9.+:~-]{0,20}", fullmatch=True)
debs = st.builds(Deb, words, words, words, st.from_regex(r"[0-9a-f]{64}", fullmatch=True))


@given(st.sets(debs, max_size=5))
def test_a_lock_reads_back_as_it_was_written(locked: set[Deb]) -> None:
    assert parse_lock(format_lock("broker", locked), "lock") == tuple(sorted(locked))


def test_every_bad_line_of_a_lock_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_lock("# comment\nbusybox 1 amd64\n\nlibc6 2 amd64 ABC\n", "packages.lock")

    assert [problem.partition(" ")[0] for problem in caught.value.problems] == [
        "packages.lock:2:",
        "packages.lock:4:",
    ]
