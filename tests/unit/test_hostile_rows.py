"""The page of hostile inputs and the tests are held together."""

from tests.hostile.rows import ids_in, ids_of_tests, rows


def test_the_page_has_each_row_once_and_in_order() -> None:
    assert [row for row, _, _ in rows()] == [f"H{number:03}" for number in range(1, 176)]


def test_each_row_has_a_test_and_each_test_a_row() -> None:
    documented, tested = {row for row, _, _ in rows()}, ids_of_tests()
    assert documented == tested


def test_an_id_is_no_part_of_a_longer_word() -> None:
    name = "test_h012_H013_one_key[h014 two]"
    assert ids_in(name) == {"H012", "H013", "H014"}
    assert not ids_in("test_sha256_h1234_xh015_h16")
