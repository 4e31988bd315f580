"""The status socket in the file system: a path of ours, 0750 and 0660, moved into place."""

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from extsloader.adapters.status_socket import StatusSocket, endpoint
from extsloader.adapters.status_socket.endpoint import identify
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code
from tests.fakes.status import FakeControl, FakeStatus
from tests.fakes.status_client import Place, listening

pytestmark = pytest.mark.timeout(20)


async def test_only_root_and_the_group_reach_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "s.sock"
    server = await StatusSocket(FakeStatus(), FakeControl(), str(path), group="daemon").start()
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o750
    assert path.lstat().st_gid == path.parent.lstat().st_gid == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["s.sock"]
    await server.close()


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server = await StatusSocket(FakeStatus(), FakeControl(), path).start()
    place = Place(FakeStatus(), path, server)
    assert (await place.get("/v1/healthz"))[0] == 200
    await place.close()


async def test_a_live_daemon_is_left_alone(tmp_path: Path) -> None:
    async with listening(f"{tmp_path}/s.sock") as place:
        with pytest.raises(MachineError, match="another daemon answers") as caught:
            await StatusSocket(FakeStatus(), FakeControl(), place.path).start()
        assert caught.value.problem.code is Code.BUSY
        assert (await place.get("/v1/healthz"))[0] == 200


@pytest.mark.parametrize("kind", ["file", "link", "directory", "fifo"])
async def test_what_is_no_socket_is_not_touched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.sock"
    makers: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_text("precious"),
        "link": lambda: path.symlink_to("/etc/passwd"),
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
    }
    makers[kind]()
    with pytest.raises(MachineError, match="exists and is not a socket"):
        await StatusSocket(FakeStatus(), FakeControl(), str(path)).start()
    assert path.lstat()


async def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o777)
    (tmp_path / "run").symlink_to("real")
    with pytest.raises(MachineError, match="cannot open the status socket"):
        await StatusSocket(FakeStatus(), FakeControl(), str(tmp_path / "run/s.sock")).start()


async def test_a_path_that_is_too_long_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="longer than the 107 bytes"):
        await StatusSocket(
            FakeStatus(), FakeControl(), str(tmp_path / ("d" * 100) / "s.sock")
        ).start()


async def test_an_unknown_group_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="there is no group 'extst-none'"):
        await StatusSocket(
            FakeStatus(), FakeControl(), str(tmp_path / "s.sock"), group="extst-none"
        ).start()


async def test_closing_leaves_a_successors_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    server = await StatusSocket(FakeStatus(), FakeControl(), str(path)).start()
    path.unlink()
    successor = endpoint.open_endpoint(str(path), "")
    await server.close()
    assert path.exists()
    successor.close()


async def test_a_socket_that_somebody_removed_comes_back_and_clients_stay(tmp_path: Path) -> None:
    async with listening(f"{tmp_path}/run/s.sock") as place:
        connected = await place.client()
        await place.server.keep()
        identity = identify(place.path)
        shutil.rmtree(tmp_path / "run")
        await place.server.keep()
        assert identify(place.path) != identity
        assert (await connected.get("/v1/healthz"))[0] == 200
        assert (await place.get("/v1/healthz"))[0] == 200
