"""Hearing Pillar's configuration, from publishers of every kind."""

import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from extsloader.adapters.pubsub import Publisher, Topic
from tests.fakes.pubsub import Ear, Listener, Peer, hearing, item, publishing, topic

NAME = "ConfigItemValueMap"
COMPLETE = b"complete ConfigItemValueMap"

# Recorded from EVE's publisher.
RECORDED = [
    b"hello ConfigItemValueMap false",
    (
        b"update ConfigItemValueMap Z2xvYmFs "
        b"eyJBZ2VudFNldHRpbmdzIjp7ImV4dHNsb2FkZXIiOnsiZGVidWcubG9nbGV2"
        b"ZWwiOnsiQm9vbFZhbHVlIjpmYWxzZSwiSW50VmFsdWUiOjAsIkl0ZW1UeXBlIjozLCJLZXkiOiJkZWJ1Zy5sb2dsZXZlbCIs"
        b"IlN0clZhbHVlIjoiZGVidWciLCJUcmlTdGF0ZVZhbHVlIjowfX19LCJHbG9iYWxTZXR0aW5ncyI6eyJtZW1vcnktbW9uaXRv"
        b"ci5lbmFibGVkIjp7IkJvb2xWYWx1ZSI6dHJ1ZSwiSW50VmFsdWUiOjAsIkl0ZW1UeXBlIjoyLCJLZXkiOiJtZW1vcnktbW9u"
        b"aXRvci5lbmFibGVkIiwiU3RyVmFsdWUiOiIiLCJUcmlTdGF0ZVZhbHVlIjowfSwidGltZXIudGVzdC5iYXNlaW1hZ2UudXBk"
        b"YXRlIjp7IkJvb2xWYWx1ZSI6ZmFsc2UsIkludFZhbHVlIjo2MDAsIkl0ZW1UeXBlIjoxLCJLZXkiOiJ0aW1lci50ZXN0LmJh"
        b"c2VpbWFnZS51cGRhdGUiLCJTdHJWYWx1ZSI6IiIsIlRyaVN0YXRlVmFsdWUiOjB9fX0="
    ),
    COMPLETE,
]
DECODED = (
    b'{"AgentSettings":{"extsloader":{"debug.loglevel":{"BoolValue":false,"IntValue":0,"ItemType":3,'
    b'"Key":"debug.loglevel","StrValue":"debug","TriStateValue":0}}},"GlobalSettings":{'
    b'"memory-monitor.enabled":{"BoolValue":true,"IntValue":0,"ItemType":2,"Key":"memory-monitor.enabled",'
    b'"StrValue":"","TriStateValue":0},"timer.test.baseimage.update":{"BoolValue":false,"IntValue":600,'
    b'"ItemType":1,"Key":"timer.test.baseimage.update","StrValue":"","TriStateValue":0}}}'
)


@pytest.fixture
def there(run: Path) -> Topic:
    return topic(run, "zedagent", NAME)


@pytest.fixture
async def ear(there: Topic) -> AsyncIterator[Ear]:
    async with hearing(there) as ear:
        yield ear


async def answer(listener: Listener, *packets: bytes) -> Peer:
    peer = await listener.accept()
    assert await peer.hear() == b"request ConfigItemValueMap"
    for packet in packets:
        await peer.say(packet)
    return peer


async def test_the_recorded_conversation(there: Topic, ear: Ear) -> None:
    listener = Listener(there)
    await answer(listener, *RECORDED)
    await ear.until_heard(**{"global": DECODED})
    listener.close()


async def test_both_our_ends_understand_each_other(there: Topic, ear: Ear) -> None:
    async with publishing(Publisher(there), a=item(b"1"), b=item(b"2")) as publisher:
        await ear.until_heard(a=b"1", b=b"2")
        publisher.publish("a", item(b"3"))
        await ear.until_heard(a=b"3", b=b"2")
        publisher.unpublish("b")
        await ear.until_heard(a=b"3")


async def test_what_was_heard_stays_while_the_publisher_is_away(there: Topic, ear: Ear) -> None:
    async with publishing(Publisher(there), a=item(b"1"), b=item(b"2")):
        await ear.until_heard(a=b"1", b=b"2")
    assert ear.items == {"a": b"1", "b": b"2"}
    async with publishing(Publisher(there), b=item(b"2"), c=item(b"3")):
        await ear.until_heard(b=b"2", c=b"3")


async def test_nothing_is_swept_before_the_publisher_has_told_all(there: Topic, ear: Ear) -> None:
    async with publishing(Publisher(there), a=item(b"1"), b=item(b"2")):
        await ear.until_heard(a=b"1", b=b"2")
    listener = Listener(there)
    peer = await answer(listener, b"hello " + NAME.encode(), b"update ConfigItemValueMap YQ== Mw==")
    await ear.until_heard(a=b"3", b=b"2")
    await peer.say(COMPLETE)
    await ear.until_heard(a=b"3")
    listener.close()


async def test_what_is_told_twice_is_heard_once(there: Topic, ear: Ear) -> None:
    listener = Listener(there)
    same = b"update ConfigItemValueMap YQ== MQ=="
    await answer(listener, same, same, COMPLETE, same, b"update ConfigItemValueMap Yg== Mg==")
    await ear.until_heard(a=b"1", b=b"2")
    assert ear.told == 2
    listener.close()


@pytest.mark.parametrize(
    "packet",
    [
        b"shout ConfigItemValueMap",
        b"update ConfigItemValueMap YQ==",
        b"update ConfigItemValueMap YQ== Mg== update ConfigItemValueMap YQ== Mg==",
        b"update ConfigItemValueMap YQ== ?",
        b"update Other YQ== Mg==",
        b"\xff\x00",
        b"update ConfigItemValueMap YQ== " + b"MQ==" * 20000,
        b"restarted ConfigItemValueMap many",
    ],
)
async def test_what_makes_no_sense_is_dropped_and_said_once(
    there: Topic, ear: Ear, packet: bytes
) -> None:
    listener = Listener(there)
    await answer(listener, packet, packet, b"update ConfigItemValueMap YQ== MQ==", COMPLETE)
    await ear.until_heard(a=b"1")
    assert len(ear.odd) == 1
    assert str(there.socket) in ear.odd[0]
    listener.close()


async def test_a_silent_publisher_is_waited_for_without_waiting(there: Topic, ear: Ear) -> None:
    listener = Listener(there)
    await answer(listener)
    assert (ear.items, ear.told, ear.odd) == ({}, 0, [])
    listener.close()
    there.socket.unlink()
    async with publishing(Publisher(there), a=item(b"1")):
        await ear.until_heard(a=b"1")


async def test_a_publisher_that_hangs_up_again_and_again(there: Topic, ear: Ear) -> None:
    listener = Listener(there)
    for _ in range(5):
        (await listener.accept()).close()
    peer = await answer(listener, b"update ConfigItemValueMap YQ== MQ==", COMPLETE)
    await ear.until_heard(a=b"1")
    peer.close()
    await answer(listener, b"update ConfigItemValueMap YQ== Mg==", COMPLETE)
    await ear.until_heard(a=b"2")
    listener.close()


async def test_a_publisher_that_tells_without_end_is_held_within_bounds(
    there: Topic, ear: Ear
) -> None:
    listener = Listener(there)
    many = [b"update ConfigItemValueMap " + _key(n) + b" MQ==" for n in range(300)]
    await answer(listener, *many, COMPLETE)
    await ear.until(lambda: ear.odd)
    assert len(ear.items) == 256
    listener.close()


async def test_a_stream_socket_is_no_publisher(there: Topic) -> None:
    there.socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(there.socket))
        stream.listen()
        async with hearing(there) as ear:
            stream.close()
            there.socket.unlink()
            async with publishing(Publisher(there), a=item(b"1")):
                await ear.until_heard(a=b"1")


async def test_a_publisher_whose_backlog_is_full_holds_up_nobody(there: Topic) -> None:
    there.socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hung:
        hung.bind(str(there.socket))
        hung.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
            first.connect(str(there.socket))
            async with hearing(there) as ear:
                assert ear.subscriber._timer is not None
        there.socket.unlink()


def _key(number: int) -> bytes:
    return b64encode(b"key%d" % number)
