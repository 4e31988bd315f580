"""Names of things."""

from extsloader.model.ids import Digest, SourceId, short


def test_a_short_digest_is_its_beginning() -> None:
    assert short(Digest("0123456789abcdef" * 4)) == "0123456789ab"


def test_a_source_is_shown_by_its_path_but_is_not_its_path() -> None:
    first, second = SourceId("/dev/sdb1", "7"), SourceId("/dev/sdb1", "8")
    assert str(first) == str(second) == "/dev/sdb1"
    assert first != second
