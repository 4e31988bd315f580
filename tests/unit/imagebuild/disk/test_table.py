import pytest

from extsloader.imagebuild.disk.table import MIB, Partition, Sizes, place, plan_table, write_script
from extsloader.model.errors import SettingsError


def test_a_live_disk_has_eves_partitions_and_no_more() -> None:
    assert [partition.label for partition in plan_table(Sizes())] == [
        "EFI System",
        "IMGA",
        "CONFIG",
    ]


def test_pkgs_and_persist_are_there_when_they_have_a_size() -> None:
    labels = [partition.label for partition in plan_table(Sizes(pkgs=MIB, persist=MIB))]

    assert labels == ["EFI System", "IMGA", "CONFIG", "PKGS", "P3"]


def test_partitions_follow_each_other_and_room_is_left_for_both_tables() -> None:
    starts, end = place(plan_table(Sizes(efi=2 * MIB, imga=3 * MIB, config=MIB)))

    assert starts == [MIB, 3 * MIB, 6 * MIB]
    assert end == 8 * MIB


def test_the_script_says_types_ids_labels_and_attributes_as_eves_table_has_them() -> None:
    script = write_script(plan_table(Sizes(efi=2 * MIB)))

    assert "label-id: AD6871EE-31F9-4CF3-9E09-6F7A25C30050" in script
    assert (
        "start=6144, size=614400, type=5DFBF5F4-2848-4BAC-AA5E-0D9A20B745A6, "
        'uuid=AD6871EE-31F9-4CF3-9E09-6F7A25C30052, name="IMGA", attrs="GUID:49,56"'
    ) in script


def test_a_size_that_is_not_whole_is_refused_for_every_partition_at_once() -> None:
    wrong = [
        Partition(label=name, kind="", uuid="", size=size) for name, size in (("A", 1), ("B", -MIB))
    ]

    with pytest.raises(SettingsError) as caught:
        place(wrong)

    assert caught.value.problems == (
        "partition A: expected whole MiB, got 1 bytes",
        "partition B: expected whole MiB, got -1048576 bytes",
    )
