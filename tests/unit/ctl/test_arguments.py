"""The command line, and what it repeats from elsewhere."""

import argparse

import pytest

from extsloader.ctl.arguments import KEYS, SOCKET, STATES, build_parser, find_socket
from extsloader.ctl.completion import VERBS
from extsloader.model.settings import Paths
from extsloader.model.status import AgentState


def test_what_is_repeated_here_is_what_the_model_says() -> None:
    assert Paths().socket == SOCKET
    assert Paths().keys == KEYS
    assert set(STATES) == {"settled", *AgentState}


def test_the_completion_knows_all_verbs() -> None:
    verbs = next(
        action.choices
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert VERBS.split() == list(verbs)


@pytest.mark.parametrize(
    ("arguments", "environment", "path"),
    [
        ([], "", SOCKET),
        ([], "/e", "/e"),
        (["--socket", "/s"], "/e", "/s"),
        (["--root", "/r/"], "/e", "/r" + SOCKET),
        (["--root", "r"], "", "r" + SOCKET),
    ],
)
def test_where_the_socket_is(
    arguments: list[str], environment: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTSLOADER_SOCKET", environment)
    assert find_socket(build_parser().parse_args(["status", *arguments])) == path


@pytest.mark.parametrize(
    "line",
    [
        "",
        "fly",
        "explain",
        "status --socket /a --root /b",
        "wait --for happiness",
        "wait --timeout -1",
        "wait --timeout nan",
        "events --since -1",
        "top --interval 0",
        "top --interval inf",
        "verify",
        "completion fish",
    ],
)
def test_wrong_usage_is_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(line.split())
    assert caught.value.code == 2
    assert "usage: extsloaderctl" in capsys.readouterr().err
