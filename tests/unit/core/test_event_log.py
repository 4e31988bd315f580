"""What is measured of an image, and the log that explains the register's value."""

import json
from hashlib import sha256

import pytest

from extsloader.core import event_log
from extsloader.core.event_log import START, Log
from extsloader.model.ids import Digest
from extsloader.model.measurement import Measurement

A, B = Digest("a" * 64), Digest("b" * 64)
FIRST = Measurement(image=A, before=START)
AFTER = event_log.extend(START, A)
ALIEN = sha256(b"somebody else").digest()


def sure(*images: Digest) -> Log:
    log: Log = ()
    for image in images:
        log += (Measurement(image=image, before=event_log.replay(log), sure=True),)
    return log


def test_the_words_and_the_value_are_what_anybody_can_compute() -> None:
    words = f"extsloader:image-verified:{A}".encode()
    assert event_log.digest_of(A) == sha256(words).digest()
    assert sha256(bytes(32) + sha256(words).digest()).digest() == AFTER


def test_a_log_leads_to_the_value_by_its_digests_alone() -> None:
    records = json.loads(event_log.encode(sure(A, B), "now"))
    value = START
    for record in records:
        (digest,) = record["digests"]
        assert (record["pcr"], digest["hashAlg"]) == (12, "sha256")
        value = sha256(value + bytes.fromhex(digest["digest"])).digest()
    assert value == event_log.replay(sure(A, B)) == event_log.extend(AFTER, B)


@pytest.mark.parametrize(
    ("value", "settled"),
    [
        (START, ()),
        (AFTER, sure(A)),
        (ALIEN, (FIRST,)),
    ],
    ids=["it never came to it", "it was done", "nobody can say"],
)
def test_the_register_says_what_became_of_an_unsure_event(value: bytes, settled: Log) -> None:
    assert event_log.settle((FIRST,), value) == settled


def test_what_is_sure_stays_whatever_others_do_to_the_register() -> None:
    assert event_log.settle(sure(A), ALIEN) == sure(A)
    assert event_log.settle((), ALIEN) == ()


def test_a_log_survives_its_file_and_not_its_boot() -> None:
    log = (*sure(A), Measurement(image=B, before=AFTER))
    raw = event_log.encode(log, "now")
    assert event_log.decode(raw, "now") == log
    assert event_log.decode(raw, "later") == ()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}}",
        b"7",
        b"[[]]",
        b'[{"content": {}}]',
        b"[" * 100_000,
        event_log.encode(sure(A), "now").replace(b'"pcr": 12', b'"pcr": 11'),
        event_log.encode(sure(A), "now").replace(b"00000000", b"000000", 1),
        event_log.encode(sure(A), "now").replace(b"00000000", b"0000000x", 1),
        event_log.encode(sure(A), "now").replace(b"true", b"1"),
    ],
)
def test_a_damaged_log_is_not_believed(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        event_log.decode(raw, "now")
