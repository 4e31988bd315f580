"""The status socket over real unix sockets: good clients, and bad ones."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import h11
import pytest

from extsloader.adapters.status_socket import Bounds, routes
from extsloader.model.control import Answer, Result, Verb
from tests.fakes.status import DEGRADED, READY
from tests.fakes.status_client import Client, Place, listening

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def bounds() -> Bounds:
    return Bounds(request=0.3, idle=0.3, write=0.3, beat=0.2)


@pytest.fixture
async def place(tmp_path: Path, bounds: Bounds) -> AsyncIterator[Place]:
    async with listening(f"{tmp_path}/run/s.sock", bounds) as place:
        yield place


async def test_status_is_the_snapshot(place: Place) -> None:
    code, body = await place.get("/v1/status")
    assert code == 200
    assert body == routes.encode(READY)


@pytest.mark.parametrize(
    ("target", "code", "wanted"),
    [
        ("/v1/services", 200, '"name":"collector"'),
        ("/v1/services/collector", 200, '"pid":812'),
        ("/v1/services/webui/explain", 200, "keeps failing"),
        ("/v1/candidates", 200, "/dev/sdb1"),
        ("/v1/healthz", 200, '"state":"ready"'),
        ("/v1/services/nothing", 404, "E_SERVICE"),
        ("/v1/services/nothing/explain", 404, "E_SERVICE"),
        ("/v1/services/", 404, "E_PATH"),
        ("/v1/services/a/b/c", 404, "E_PATH"),
        ("/v1/services/..%2f..%2fetc%2fshadow", 404, "E_SERVICE"),
        ("/v1/nothing", 404, "/v1/status"),
        ("/v2/status", 404, "E_PATH"),
        ("/v1/status?beyond=x", 400, "whole number"),
        ("/v1/status?beyond=-1", 400, "whole number"),
        ("/v1/status?beyond=" + "9" * 50, 400, "whole number"),
        ("/v1/status?beyond=1&timeout=1e9", 400, "0 to 300"),
        ("/v1/status?beyond=1&timeout=nan", 400, "0 to 300"),
        ("/v1/status?timeout=1", 400, "together with beyond"),
        ("/v1/status?beyound=1", 400, "expected beyond, timeout"),
        ("/v1/status?" + "&".join(f"a{i}=1" for i in range(50)), 400, "E_REQUEST"),
        ("http://[/v1/status", 400, "E_REQUEST"),
    ],
)
async def test_targets(place: Place, target: str, code: int, wanted: str) -> None:
    got, body = await place.get(target)
    assert (got, wanted in body.decode()) == (code, True), body


async def test_no_failure_lacks_code_and_message(place: Place) -> None:
    _, body = await place.get("/v1/nothing")
    failure = json.loads(body)
    assert failure["code"] == "E_PATH"
    assert failure["message"] == "there is no '/v1/nothing'"
    assert failure["hint"].startswith("the paths are /v1/status")


async def test_only_get_is_possible(place: Place) -> None:
    client = await place.client()
    code, headers = await client.ask("/v1/status", "POST")
    assert (code, headers["allow"]) == (405, "GET")
    code, body = await place.get("/v1/status", "HEAD")
    assert (code, body) == (405, b"")


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("/v1/services/webui/restart", (Verb.RESTART, "webui")),
        ("/v1/services/../pause", (Verb.PAUSE, "..")),
        ("/v1/rescan", (Verb.RESCAN, "")),
        ("/v1/reload", (Verb.RELOAD, "")),
    ],
)
async def test_changes_are_asked_for_in_the_name_of_who_connected(
    place: Place, target: str, asked: tuple[Verb, str]
) -> None:
    code, body = await place.get(target, "POST", Uid="0")
    assert (code, json.loads(body)["result"]) == (202, "accepted")
    assert place.control.asked == [(*asked, os.geteuid())]


@pytest.mark.parametrize(
    ("result", "code", "word"),
    [
        (Result.ALREADY, 200, '"result":"already"'),
        (Result.REFUSED, 409, "E_REFUSED"),
        (Result.UNKNOWN, 404, "E_SERVICE"),
        (Result.DENIED, 403, "E_DENIED"),
    ],
)
async def test_every_result_has_its_status(
    place: Place, result: Result, code: int, word: str
) -> None:
    place.control.answer = Answer(result=result, message="so it is", hint="do this")
    got, body = await place.get("/v1/services/webui/stop", "POST")
    assert got == code
    assert word in body.decode()
    assert "so it is" in body.decode()


async def test_reading_what_can_only_be_asked_for_is_no_asking(place: Place) -> None:
    client = await place.client()
    code, headers = await client.ask("/v1/services/webui/stop")
    assert (code, headers["allow"]) == (405, "POST")
    assert not place.control.asked


async def test_a_change_that_is_never_decided_is_given_up(tmp_path: Path) -> None:
    async with listening(f"{tmp_path}/s.sock", Bounds(command=0.05)) as place:
        place.control.decides = False
        code, body = await place.get("/v1/rescan", "POST")
    assert (code, json.loads(body)["code"]) == (503, "E_TIMEOUT")


async def test_a_kept_connection_answers_many_requests(place: Place) -> None:
    client = await place.client()
    for _ in range(5):
        assert (await client.get("/v1/status"))[0] == 200
    assert (await client.get("/v1/nothing"))[0] == 404
    assert (await client.get("/v1/status"))[0] == 200


async def test_requests_sent_ahead_are_answered_in_order(place: Place) -> None:
    client = await place.client()
    request = b"GET /v1/%s HTTP/1.1\r\nHost: x\r\n\r\n"
    client.writer.write(request % b"healthz" + request % b"nothing")
    client.http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    assert (await client.head())[0] == 200
    assert b"generation" in await client.more()
    received = await client.reader.readuntil(b"\r\n") if not client.http.trailing_data[0] else b""
    assert b"404" in client.http.trailing_data[0] + received


async def test_a_file_name_that_is_no_utf8_does_not_break_the_answer(place: Place) -> None:
    odd = replace(READY.candidates[0], device="/persist/\udcff.img")
    await place.status.publish(replace(READY, candidates=(odd,)))
    code, body = await place.get("/v1/candidates")
    assert code == 200
    assert json.loads(body)[0]["device"] == "/persist/?.img"


async def test_a_long_poll_wakes_with_the_next_generation(place: Place) -> None:
    waiting = asyncio.gather(place.get("/v1/status?beyond=7&timeout=15"))
    await place.status.wait_for_waiters(1)
    await place.status.publish(DEGRADED)
    ((code, body),) = await waiting
    assert (code, json.loads(body)["generation"]) == (200, 8)


async def test_a_long_poll_answers_at_once_when_there_is_news_already(place: Place) -> None:
    _, body = await place.get("/v1/status?beyond=6")
    assert json.loads(body)["generation"] == 7


async def test_a_long_poll_without_news_ends_with_the_current_snapshot(place: Place) -> None:
    code, body = await place.get("/v1/status?beyond=7&timeout=0.05")
    assert (code, json.loads(body)["generation"]) == (200, 7)


async def test_nobody_waits_for_a_long_poller_that_left(place: Place) -> None:
    client = await place.client()
    client.writer.write(b"GET /v1/status?beyond=7&timeout=300 HTTP/1.1\r\nHost: x\r\n\r\n")
    await place.status.wait_for_waiters(1)
    client.writer.close()
    await place.status.wait_for_waiters(0)


async def test_events_come_as_json_when_asked_for(place: Place) -> None:
    await place.status.add("ready", "removing")
    await place.status.add("removing", "backing-off")
    code, body = await place.get("/v1/events?since=1", Accept="application/json")
    assert code == 200
    assert [change["new"] for change in json.loads(body)] == ["backing-off"]


async def test_the_event_stream_tells_the_past_and_goes_on(place: Place) -> None:
    await place.status.add("ready", "removing")
    client = await place.client()
    code, headers = await client.ask("/v1/events")
    assert (code, headers["content-type"]) == (200, "text/event-stream")
    first = (await client.more()).decode()
    assert first.startswith("id: 1\nevent: change\ndata: {")
    assert first.endswith("}\n\n")
    await place.status.add("removing", "backing-off")
    assert (await client.more()).startswith(b"id: 2\n")


async def test_a_stream_goes_on_after_the_last_event_that_was_seen(place: Place) -> None:
    for new in ("a", "b", "c"):
        await place.status.add("x", new)
    client = await place.client()
    await client.ask("/v1/events?since=0", Last_Event_ID="2")
    assert (await client.more()).startswith(b"id: 3\n")


async def test_a_stream_from_before_the_agents_restart_starts_anew(place: Place) -> None:
    await place.status.add("x", "a")
    client = await place.client()
    await client.ask("/v1/events", Last_Event_ID="500")
    assert (await client.more()).startswith(b"id: 1\n")


async def test_a_quiet_stream_shows_that_it_lives(place: Place) -> None:
    client = await place.client()
    await client.ask("/v1/events")
    assert await client.more() == b":\n\n"


async def test_closing_ends_streams_properly_and_removes_the_socket(place: Place) -> None:
    client = await place.client()
    await client.ask("/v1/events")
    await place.server.close()
    while await client.more():
        pass
    assert client.http.their_state is h11.DONE
    with pytest.raises(FileNotFoundError):
        os.lstat(place.path)


# Clients that misbehave; hostile ones: tests/hostile/test_socket.py.


async def test_an_idle_kept_connection_is_closed_without_a_word(place: Place) -> None:
    client = await place.client()
    await client.get("/v1/healthz")
    assert await client.reader.read() == b""


async def test_http_1_0_clients_are_served(place: Place) -> None:
    client = await place.client()
    client.writer.write(b"GET /v1/healthz HTTP/1.0\r\n\r\n")
    assert b'"state":"ready"' in await client.reader.read()


# A busy machine may take longer to connect 32 clients than one of the others' deadlines.
@pytest.mark.parametrize("bounds", [Bounds()], ids=["patient"])
async def test_the_33rd_client_hears_that_it_is_busy(place: Place) -> None:
    clients = [await place.client() for _ in range(32)]
    for client in clients:
        await client.ask("/v1/events")
    one_more = await place.client()
    assert b"E_BUSY" in await _read_until_closed(one_more)
    clients[0].writer.close()
    while await _is_busy(place):  # until the server has seen it leave
        pass


async def _is_busy(place: Place) -> bool:
    """Whoever is refused may find the connection closed before the request is written."""
    try:
        code, _ = await place.get("/v1/healthz")
    except ConnectionError:
        return True
    return code == 503


async def _read_until_closed(client: Client) -> bytes:
    """All that comes; a close with unread bytes at the other end shows as a reset (unix(7))."""
    received = b""
    while True:
        try:
            data = await client.reader.read(65536)
        except ConnectionError:
            return received
        if not data:
            return received
        received += data
