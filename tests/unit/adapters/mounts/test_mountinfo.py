import pytest

from extsloader.adapters.mounts.mountinfo import is_below, parse, top, undo_order

# Recorded on Debian 12: a blank, a backslash and a line feed in the paths, several optional fields,
# none, and an empty source.
RECORDED = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
80 27 7:0 / /run/extst/images/01 ro,nosuid,nodev shared:1 master:2 - squashfs /dev/loop0 ro
81 27 0:45 / /run/extst/a\040b\134c\012d rw - tmpfs  rw,size=64k
82 81 0:46 / /run/extst/a\040b\134c\012d/inner rw - tmpfs none rw
83 27 0:47 / /run/extst/x rw - overlay overlay rw,lowerdir=/l\0401:/l2,upperdir=/u,workdir=/w
84 83 0:48 / /run/extst/x rw - tmpfs over rw
85 27 0:49 / /run/extst-other rw - tmpfs none rw
86 27 0:50 / /run/extst-#1 rw - tmpfs a\043b rw
"""
MOUNTS = parse(RECORDED)


def test_the_image_is_read_by_field_whatever_optional_fields_there_are() -> None:
    image = top(MOUNTS, "/run/extst/images/01")
    assert image is not None
    assert (image.fs_type, image.source, image.device) == ("squashfs", "/dev/loop0", "7:0")
    assert image.options == ("ro", "nosuid", "nodev")


def test_octal_escapes_become_the_characters_they_stand_for() -> None:
    odd = top(MOUNTS, "/run/extst/a b\\c\nd")
    assert odd is not None
    assert odd.source == ""


@pytest.mark.parametrize("path", ["/run/extst/a b\\c\nd", "/run/extst-#1"])
def test_a_mount_is_found_by_its_path_whatever_is_in_it(path: str) -> None:
    """The kernel writes "#" as it is here, and escapes it only in the source."""
    assert top(parse(RECORDED, path), path) is not None


def test_overlay_directories_are_in_the_super_options() -> None:
    overlay = next(mount for mount in MOUNTS if mount.fs_type == "overlay")
    assert "lowerdir=/l 1:/l2" in overlay.super_options


def test_of_two_mounts_at_one_path_the_covering_one_is_on_top() -> None:
    covering = top(MOUNTS, "/run/extst/x")
    assert covering is not None
    assert covering.source == "over"
    assert top(tuple(reversed(MOUNTS)), "/run/extst/x") == covering


def test_no_mount_at_a_plain_directory_even_if_something_is_mounted_below() -> None:
    assert top(MOUNTS, "/run/extst") is None


def test_a_common_beginning_of_names_is_not_below() -> None:
    assert is_below("/run/extst", "/run/extst")
    assert is_below("/run/extst/x", "/run/extst")
    assert is_below("/run", "/")
    assert not is_below("/run/extst-other", "/run/extst")


def test_each_mount_is_undone_before_the_one_it_stands_on() -> None:
    order = [mount.id for mount in undo_order(MOUNTS, "/run/extst")]
    assert sorted(order) == [80, 81, 82, 83, 84]
    assert order.index(82) < order.index(81)
    assert order.index(84) < order.index(83)
