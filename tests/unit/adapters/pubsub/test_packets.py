"""The words of the protocol, byte for byte as they were recorded from EVE's own publisher."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.adapters.pubsub import packets
from extsloader.adapters.pubsub.packets import Complete, Delete, Hello, Packet, Restarted, Update

TOPIC = "ExtsloaderStatus"

RECORDED = [
    (Hello(), b"hello ExtsloaderStatus false"),
    (Complete(), b"complete ExtsloaderStatus"),
    (
        Update(
            "global",
            b'{"Error":"","ErrorEntities":null,"ErrorRetryCondition":"","ErrorSeverity":0,'
            b'"ErrorTime":"0001-01-01T00:00:00Z","ImagePath":"","MountPoint":"/persist/exts",'
            b'"Partition":"","Reason":"","State":0}',
        ),
        (
            b"update ExtsloaderStatus Z2xvYmFs "
            b"eyJFcnJvciI6IiIsIkVycm9yRW50aXRpZXMiOm51bGwsIkVycm9yUmV0"
            b"cnlDb25kaXRpb24iOiIiLCJFcnJvclNldmVyaXR5IjowLCJFcnJvclRpbWUiOiIwMDAxLTAxLTAxVDAwOjAwOjAw"
            b"WiIsIkltYWdlUGF0aCI6IiIsIk1vdW50UG9pbnQiOiIvcGVyc2lzdC9leHRzIiwiUGFydGl0aW9uIjoiIiwiUmVh"
            b"c29uIjoiIiwiU3RhdGUiOjB9"
        ),
    ),
    (Restarted(1), b"restarted ExtsloaderStatus 1"),
    (Delete("global"), b"delete ExtsloaderStatus Z2xvYmFs"),
    (Restarted(0), b"restarted ExtsloaderStatus 0"),
]


@pytest.mark.parametrize(("packet", "raw"), RECORDED)
def test_what_was_recorded_is_written_and_read(packet: Packet, raw: bytes) -> None:
    assert packets.write(TOPIC, packet) == raw
    assert packets.read(TOPIC, raw) == packet


def test_older_publishers_say_less_in_their_hello() -> None:
    assert packets.write(TOPIC, Hello(), plain_hello=True) == b"hello ExtsloaderStatus"
    assert packets.read(TOPIC, b"hello ExtsloaderStatus") == Hello()
    assert packets.read(TOPIC, b"hello ExtsloaderStatus true and more") == Hello()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b"hello Other",
        b"update Other Z2xvYmFs e30=",
        b"update ExtsloaderStatus Z2xvYmFs",
        b"update ExtsloaderStatus Z2xvYmFs e30= complete ExtsloaderStatus",  # two in one packet
        b"update ExtsloaderStatus Z2xvYmFs ???",
        b"update ExtsloaderStatus Z2xvYmFs e30",  # no padding
        b"update ExtsloaderStatus  Z2xvYmFs e30=",  # two blanks
        b"update ExtsloaderStatus /w== e30=",  # a key that is no text
        b"delete ExtsloaderStatus",
        b"complete ExtsloaderStatus now",
        b"restarted ExtsloaderStatus -1",
        b"restarted ExtsloaderStatus " + b"9" * 5000,
        b"shout ExtsloaderStatus",
        b"complete ExtsloaderStatus" + b"\n" * 65536,
    ],
)
def test_what_is_no_packet(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        packets.read(TOPIC, raw)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(raw: bytes) -> None:
    for begin in (b"", b"update ExtsloaderStatus "):
        with suppress(ValueError):
            packets.read(TOPIC, begin + raw)
