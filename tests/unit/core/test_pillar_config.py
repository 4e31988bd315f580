"""Pillar's configuration, as it is and as it should never be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.core.pillar_config import read
from extsloader.model.pillar import PillarConfig

# Recorded from EVE's publisher.
RECORDED = (
    b'{"AgentSettings":{"extsloader":{"debug.loglevel":{"BoolValue":false,"IntValue":0,"ItemType":3,'
    b'"Key":"debug.loglevel","StrValue":"debug","TriStateValue":0}}},"GlobalSettings":{'
    b'"memory-monitor.enabled":{"BoolValue":true,"IntValue":0,"ItemType":2,"Key":"memory-monitor.enabled",'
    b'"StrValue":"","TriStateValue":0},"timer.test.baseimage.update":{"BoolValue":false,"IntValue":600,'
    b'"ItemType":1,"Key":"timer.test.baseimage.update","StrValue":"","TriStateValue":0}}}'
)


def text(value: object) -> dict[str, object]:
    return {"ItemType": 3, "StrValue": value}


def switch(*, on: object) -> dict[str, object]:
    return {"ItemType": 2, "BoolValue": on}


def config(device: Any = None, ours: Any = None, **overrides: str) -> PillarConfig:
    tree = {"GlobalSettings": device or {}, "AgentSettings": {"extsloader": ours or {}}}
    return read({"global": json.dumps(tree).encode()}, overrides)


def test_before_it_arrives_the_defaults_hold() -> None:
    assert read({}, {}) == PillarConfig()


def test_the_recorded_configuration() -> None:
    assert read({"global": RECORDED}, {}) == PillarConfig(log_level="debug")


def test_the_agent_s_own_log_level_is_stronger_than_the_device_s() -> None:
    device = {"debug.default.loglevel": text("warning")}
    assert config(device).log_level == "warning"
    assert config(device, {"debug.loglevel": text("trace")}).log_level == "trace"
    assert config(device, {"debug.loglevel": text("")}).log_level == "warning"


def test_an_unknown_log_level_is_said_and_not_used() -> None:
    found = config(ours={"debug.loglevel": text("loud\n")})
    assert (found.log_level, found.odd) == ("info", ("no log level: 'loud\\n'",))


def test_the_memory_monitor_is_paused_by_its_setting() -> None:
    key = "memory-monitor.enabled"
    assert config({key: switch(on=False)}).held == {
        "memory-monitor": "Pillar's setting memory-monitor.enabled is false"
    }
    assert not config({key: switch(on=True)}).held


def test_an_override_file_is_stronger_than_the_configuration() -> None:
    off = {"memory-monitor.enabled": switch(on=False)}
    assert not config(off, **{"memory-monitor": "enabled"}).held
    assert config(vector="disabled").held == {"vector": "the override file of vector says disabled"}
    odd = config(off, **{"memory-monitor": "perhaps"})
    assert "memory-monitor" in odd.held
    assert odd.odd == ('the override file of memory-monitor says neither "enabled" nor "disabled"',)


@pytest.mark.parametrize(
    "item",
    [{"ItemType": 1, "IntValue": 0}, {"ItemType": 2, "StrValue": "x"}, {}, 7, [], switch(on="no")],
)
def test_an_item_of_another_type_pauses_nothing(item: object) -> None:
    assert not config({"memory-monitor.enabled": item}).held


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", b"\xff", b"null", b"[" * 100_000, b'{"GlobalSettings": 3}', b"1" * 9999],
)
def test_broken_configurations_mean_the_defaults(raw: bytes) -> None:
    found = read({"global": raw}, {})
    assert (found.log_level, found.held) == ("info", {})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_nothing_in_it_can_stop_the_agent(value: object) -> None:
    for key in ("memory-monitor.enabled", "debug.default.loglevel"):
        config({key: value}, {"debug.loglevel": value})
    read({"global": json.dumps(value).encode()}, {})
