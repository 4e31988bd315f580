"""`/metrics`: what a collector of OpenMetrics reads."""

import re
from dataclasses import replace
from pathlib import Path

from extsloader.adapters.status_socket.metrics import CONTENT_TYPE, render
from extsloader.model.ids import ServiceName
from extsloader.model.status import StatusSnapshot
from tests.fakes.status import DEGRADED
from tests.fakes.status_client import listening

LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"(extsloader_[a-z_]+)\{{(?:{LABEL}(?:,{LABEL})*)?\}} -?[0-9.e+]+")


def samples(text: str) -> list[str]:
    """All samples, each checked against the grammar and the family that it stands in."""
    found, family, kind, seen = [], "", "", set[str]()
    *lines, end = text.split("\n")[:-1]
    assert end == "# EOF"
    for line in lines:
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in seen
            seen.add(family)
        elif not line.startswith(f"# HELP {family} "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == family + {"counter": "_total", "info": "_info"}.get(kind, "")
            found.append(line)
    assert len(found) == len(set(found))
    return found


def test_the_whole_and_its_services() -> None:
    found = samples(render(DEGRADED).decode())
    for line in (
        'extsloader_state{extsloader_state="degraded"} 1',
        'extsloader_state{extsloader_state="ready"} 0',
        'extsloader_candidates{verdict="verified"} 1',
        f"extsloader_agent_memory_bytes{{}} {24 << 20}",
        'extsloader_service_state{service="telemetry",state="backing-off"} 1',
        'extsloader_service_essential{service="collector"} 1',
        'extsloader_service_restarts_total{service="telemetry"} 3',
        'extsloader_service_cpu_seconds_total{service="collector"} 1.5',
        f'extsloader_service_memory_bytes{{service="collector"}} {12 << 20}',
    ):
        assert line in found
    assert not any("service_memory_bytes" in line and "telemetry" in line for line in found)


def test_an_agent_that_has_found_nothing_yet() -> None:
    assert len(samples(render(StatusSnapshot()).decode())) == 8  # the states


def test_a_name_cannot_break_out_of_its_label() -> None:
    bad = replace(DEGRADED.services[0], name=ServiceName('a"} 1\nb\\\udcff'))
    text = render(replace(DEGRADED, services=(bad,))).decode()
    assert r'extsloader_service_essential{service="a\"} 1\nb\\?"} 1' in samples(text)


async def test_it_is_told_what_it_is(tmp_path: Path) -> None:
    async with listening(str(tmp_path / "s.sock")) as place:
        await place.status.publish(DEGRADED)
        client = await place.client()
        status, headers = await client.ask("/metrics")
        assert (status, headers["content-type"]) == (200, CONTENT_TYPE)
        assert (await client.more()).startswith(b"# TYPE extsloader_state stateset\n")
