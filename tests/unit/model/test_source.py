"""What tells one medium from the next in the same place."""

from extsloader.model.source import device_generation, file_generation


def test_a_device_is_told_apart_by_its_sequence_number() -> None:
    assert device_generation("12", 0, "8:16") == "12"
    assert device_generation("12", 3, "8:19") == "12.3"


def test_an_older_kernel_has_only_the_device_number() -> None:
    assert device_generation("", 3, "8:19") == "8:19"


def test_a_file_that_was_written_to_is_another_one() -> None:
    before, after = file_generation(7, 4096, 100), file_generation(7, 4096, 101)
    assert before != after
    assert file_generation(8, 4096, 100) != before != file_generation(7, 8192, 100)
