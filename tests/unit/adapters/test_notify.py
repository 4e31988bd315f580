"""sd_notify over real sockets."""

import os
import socket
from pathlib import Path

import pytest

from extsloader.adapters.notify import Notifier, take_notifier


def test_the_manager_hears_everything(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        notifier = Notifier(address=address)
        assert notifier.ready()
        assert notifier.say("degraded:\ntelemetry\nREADY=1")
        assert notifier.keep_alive()
        assert notifier.stopping()
        assert [manager.recv(100) for _ in range(4)] == [
            b"READY=1",
            b"STATUS=degraded: telemetry READY=1",
            b"WATCHDOG=1",
            b"STOPPING=1",
        ]


def test_abstract_sockets() -> None:
    name = f"extst-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        assert Notifier(address="@" + name).ready()
        assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    assert not Notifier().ready()
    assert not Notifier(address=str(tmp_path / "gone")).ready()


def test_a_manager_that_does_not_read_does_not_block_us(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        sent = [Notifier(address=address).keep_alive() for _ in range(1000)]
    assert sent[0]
    assert not sent[-1]


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environ = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "20000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    assert take_notifier(environ) == Notifier(address="/run/n", watchdog=20.0)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("environ", "notifier"),
    [
        ({}, Notifier()),
        ({"NOTIFY_SOCKET": "junk"}, Notifier()),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "junk"}, Notifier(address="@x")),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "0"}, Notifier(address="@x")),
        ({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "9" * 5000}, Notifier()),
        ({"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "9" * 400}, Notifier()),
        ({"WATCHDOG_USEC": "\u0663", "LISTEN_FDS": "1000000000"}, Notifier()),
        (
            {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
            Notifier(address="@x"),
        ),
    ],
)
def test_h174_odd_environments(environ: dict[str, str], notifier: Notifier) -> None:
    assert take_notifier(environ) == notifier


@pytest.mark.parametrize(
    "address", ["@" + "x" * 300, "/" + "x" * 300, "/nowhere", "/", "@", "/\udcff"]
)
def test_h174_an_address_that_nobody_has_is_no_error(address: str) -> None:
    assert not Notifier(address=address).ready()
