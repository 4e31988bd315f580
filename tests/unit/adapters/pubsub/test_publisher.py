"""What Pillar's agents hear, and what they can do to us."""

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from extsloader.adapters.pubsub import Bounds, Publisher
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code
from tests.fakes.pubsub import Peer, hearing, item, publishing, topic

HELLO = b"hello ExtsloaderStatus false"
COMPLETE = b"complete ExtsloaderStatus"


def update(word: bytes) -> bytes:
    return b"update ExtsloaderStatus Z2xvYmFs " + word


async def test_the_recorded_conversation(run: Path) -> None:
    publisher = Publisher(topic(run), plain_hello=True)
    publisher.open({})
    peer = await Peer.dial(topic(run))
    assert await peer.hear() == b"hello ExtsloaderStatus"
    assert await peer.hear() == COMPLETE
    publisher.publish("global", item(b"{}"))
    assert await peer.hear() == update(b"e30=")
    publisher.signal_restarted()
    assert await peer.hear() == b"restarted ExtsloaderStatus 1"
    publisher.unpublish("global")
    assert await peer.hear() == b"delete ExtsloaderStatus Z2xvYmFs"
    publisher.close()
    assert await peer.hear() == b"restarted ExtsloaderStatus 0"
    assert await peer.hear() == b""
    peer.close()


async def test_who_comes_later_hears_first_what_is_there(run: Path) -> None:
    async with publishing(Publisher(topic(run)), **{"global": item(b"{}")}) as publisher:
        publisher.signal_restarted()
        peer = await Peer.dial(topic(run))
        last = b"restarted ExtsloaderStatus 1"
        assert await peer.hear_all(last) == [HELLO, update(b"e30="), COMPLETE, last]
        peer.close()


async def test_files_are_as_tools_read_them(run: Path) -> None:
    async with publishing(Publisher(topic(run)), **{"global": item(b"{}")}) as publisher:
        directory = topic(run).directory
        file = directory / "global.json"
        assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"{}", 0o600)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        publisher.publish("global", item(b'{"State":1}'))
        assert file.read_bytes() == b'{"State":1}'
        publisher.signal_restarted()
        assert (directory / "restarted").read_bytes() == b"1"
        publisher.unpublish("global")
        assert sorted(path.name for path in directory.iterdir()) == ["restarted"]
    assert list(directory.iterdir()) == []
    assert not topic(run).socket.exists()


async def test_what_an_earlier_agent_said_is_never_told(run: Path) -> None:
    directory = topic(run).directory
    directory.mkdir(parents=True)
    (directory / "global.json").write_bytes(b'{"State":1}')
    (directory / "old.json").write_bytes(b'{"State":1}')
    (directory / "tmp123").write_bytes(b"{")
    (directory / "restarted").write_bytes(b"4")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(topic(run).socket))  # killed: its socket stays
    async with publishing(Publisher(topic(run)), **{"global": item(b"{}")}) as publisher:
        peer = await Peer.dial(topic(run))
        last = b"restarted ExtsloaderStatus 4"
        assert await peer.hear_all(last) == [HELLO, update(b"e30="), COMPLETE, last]
        assert (directory / "global.json").read_bytes() == b"{}"
        assert not (directory / "old.json").exists()
        assert not (directory / "tmp123").exists()
        publisher.signal_restarted()
        assert await peer.hear() == b"restarted ExtsloaderStatus 5"
        peer.close()


@pytest.mark.parametrize("content", [b"", b"-3", b"x"])
async def test_a_counter_that_cannot_be_read_is_one(run: Path, content: bytes) -> None:
    topic(run).directory.mkdir(parents=True)
    (topic(run).directory / "restarted").write_bytes(content)
    async with publishing(Publisher(topic(run))):
        peer = await Peer.dial(topic(run))
        assert (await peer.hear_all(b"restarted ExtsloaderStatus 1"))[:2] == [HELLO, COMPLETE]
        peer.close()


async def test_two_publishers_of_one_name_exclude_each_other(run: Path) -> None:
    async with publishing(Publisher(topic(run)), **{"global": item(b"first")}):
        second = Publisher(topic(run))
        with pytest.raises(MachineError) as refused:
            second.open({"global": item(b"second")})
        assert refused.value.problem.code is Code.BUSY
        assert (topic(run).directory / "global.json").read_bytes() == b"first"
        assert topic(run).socket.exists()


async def test_a_stranger_of_another_kind_also_counts_as_alive(run: Path) -> None:
    topic(run).socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(topic(run).socket))
        other.listen()
        with pytest.raises(MachineError, match="another publisher answers"):
            Publisher(topic(run)).open({})


async def test_a_file_in_the_socket_s_place_is_left_alone(run: Path) -> None:
    topic(run).socket.parent.mkdir(parents=True)
    topic(run).socket.write_text("precious")
    with pytest.raises(MachineError, match="is not a socket"):
        Publisher(topic(run)).open({})
    assert topic(run).socket.read_text() == "precious"


async def test_a_path_that_is_too_long_is_said(run: Path) -> None:
    with pytest.raises(MachineError, match="too long"):
        Publisher(topic(run / ("x" * 100))).open({})


@pytest.mark.parametrize(
    "request_",
    [
        b"request Other",
        b"request ExtsloaderStatus ",
        b"request ExtsloaderStatus again",
        b"hello ExtsloaderStatus",
        b"request ExtsloaderStatus\n",
        b"request ExtsloaderStatus" + b"x" * 70000,
        b"\0",
    ],
)
async def test_another_request_is_answered_by_the_end(run: Path, request_: bytes) -> None:
    async with publishing(Publisher(topic(run)), **{"global": item()}):
        peer = await Peer.dial(topic(run), request=request_)
        assert await peer.hear() == b""
        peer.close()
        await _is_well(run)


async def test_who_says_more_than_a_request_is_not_served_on(run: Path) -> None:
    async with publishing(Publisher(topic(run)), **{"global": item()}):
        peer = await Peer.dial(topic(run))
        await peer.hear_all(COMPLETE)
        await peer.say(b"request ExtsloaderStatus")
        assert await peer.hear() == b""
        peer.close()
        await _is_well(run)


async def test_who_leaves_while_being_told_harms_nobody(run: Path) -> None:
    async with publishing(Publisher(topic(run)), **{"global": item()}) as publisher:
        for _ in range(5):
            peer = await Peer.dial(topic(run))
            peer.close()
            publisher.publish("global", item(b"{}"))
            await asyncio.sleep(0)
            publisher.publish("global", item())
        await _is_well(run)


async def test_who_says_nothing_is_sent_away(run: Path) -> None:
    bounds = Bounds(patience=0.05)
    async with publishing(Publisher(topic(run), bounds), **{"global": item()}):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.connect(str(topic(run).socket))
            assert await Peer(silent).hear() == b""
        await _is_well(run)


async def test_who_does_not_read_waits_alone_and_hears_the_newest_in_the_end(
    run: Path,
) -> None:
    big = [b'{"Reason":"%d%s"}' % (n, b"x" * 40000) for n in range(20)]
    async with publishing(Publisher(topic(run)), **{"global": item()}) as publisher:
        slow = await Peer.dial(topic(run))
        await slow.hear_all(COMPLETE)
        async with hearing(topic(run)) as ear:
            for json in big:
                publisher.publish("global", item(json))
                await ear.until_heard(**{"global": json})
        heard = 0
        publisher.unpublish("global")
        while await slow.hear() != b"delete ExtsloaderStatus Z2xvYmFs":
            heard += 1
        assert 1 <= heard < len(big)
        slow.close()


async def test_of_what_a_slow_reader_has_missed_deletes_come_first(run: Path) -> None:
    async with publishing(Publisher(topic(run)), a=item(), b=item()) as publisher:
        slow = await Peer.dial(topic(run))
        await slow.hear_all(COMPLETE)
        for number in range(20):
            publisher.publish("b", item(b'{"Reason":"%d%s"}' % (number, b"x" * 40000)))
        publisher.publish("b", item(b"{}"))
        publisher.unpublish("a")
        heard = await slow.hear_all(b"update ExtsloaderStatus Yg== e30=")
        assert heard[-2] == b"delete ExtsloaderStatus YQ=="
        slow.close()


async def test_who_never_reads_is_sent_away(run: Path) -> None:
    bounds = Bounds(patience=0.05)
    async with publishing(Publisher(topic(run), bounds), **{"global": item()}) as publisher:
        stuck = await Peer.dial(topic(run))
        await stuck.hear_all(COMPLETE)
        for number in range(20):
            publisher.publish("global", item(b'"%d%s"' % (number, b"x" * 40000)))
        while publisher._connections:  # noqa: ASYNC110 - nothing tells that somebody was sent away
            await asyncio.sleep(0.01)
        stuck.close()
        await _is_well(run)


async def test_too_many_are_sent_away_and_the_others_stay(run: Path) -> None:
    bounds = Bounds(connections=2)
    async with publishing(Publisher(topic(run), bounds), **{"global": item()}):
        peers = [await Peer.dial(topic(run)) for _ in range(2)]
        for peer in peers:
            await peer.hear_all(COMPLETE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as third:
            third.connect(str(topic(run).socket))
            assert await Peer(third).hear() == b""
        peers[0].close()
        await asyncio.sleep(0)
        await _is_well(run)
        peers[1].close()


async def test_what_is_too_large_for_a_packet_is_refused(run: Path) -> None:
    """One byte more and a publisher in Go would reboot the device."""
    fits = b"x" * 49125
    async with publishing(Publisher(topic(run)), **{"global": item()}) as publisher:
        publisher.publish("global", item(fits))
        with pytest.raises(MachineError) as refused:
            publisher.publish("global", item(fits + b"x"))
        assert refused.value.problem.code is Code.LIMIT
        async with hearing(topic(run)) as ear:
            await ear.until_heard(**{"global": fits})


async def test_a_disk_that_is_full_costs_the_file_and_not_the_message(run: Path) -> None:
    async with publishing(Publisher(topic(run)), **{"global": item()}) as publisher:
        directory = topic(run).directory
        directory.rename(run / "elsewhere")
        with pytest.raises(MachineError) as failed:
            publisher.publish("global", item(b"{}"))
        assert failed.value.problem.code is Code.STATE
        async with hearing(topic(run)) as ear:
            await ear.until_heard(**{"global": b"{}"})


@pytest.mark.parametrize("key", ["", "a/b", "a\0b", "x" * 251])
async def test_impossible_keys(run: Path, key: str) -> None:
    async with publishing(Publisher(topic(run))) as publisher:
        with pytest.raises(ValueError, match="no key"):
            publisher.publish(key, item())


async def test_the_mode_of_the_socket_follows_from_the_umask(run: Path) -> None:
    before = os.umask(0o022)
    try:
        async with publishing(Publisher(topic(run))):
            assert stat.S_IMODE(topic(run).socket.stat().st_mode) == 0o755
    finally:
        os.umask(before)


async def _is_well(run: Path) -> None:
    peer = await Peer.dial(topic(run))
    assert COMPLETE in await peer.hear_all(COMPLETE)
    peer.close()
