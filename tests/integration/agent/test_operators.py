"""A real agent does what root asks of it, and nothing that others ask."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.real_agent import PROJECT, RealAgent, pids
from tests.fakes.real_devices import LoopDevice

pytestmark = pytest.mark.root

ASK = """
import os, sys
from extsloader.ctl.client import Client, RefusedError
client = Client(sys.argv[1])
os.setgid(65534); os.setuid(65534)
try:
    print(client.order("/v1/services/api/stop", wait=5).result)
except RefusedError as error:
    print(error.code)
"""


def configure(agent: RealAgent, text: str) -> None:
    file = agent.root / "etc/extsloader/extsloader.toml"
    file.write_text(text)


def states(agent: RealAgent) -> dict[str, str]:
    return {str(service.name): service.state for service in agent.status().services}


def test_stop_start_restart_pause_and_resume(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    assert agent.ctl("stop", "api")[:2] == (
        0,
        "api stops until it is started or the device boots, and with it site\n",
    )
    agent.until(lambda s: [x.state for x in s.services if x.name == "api"] == ["stopped"])
    assert agent.ctl("stop", "api")[0] == 0, "there is nothing to do"
    assert agent.ctl("start", "api")[0] == 0
    started = pids(agent.until_ready())
    assert started["base"] == before["base"]
    assert agent.ctl("restart", "base")[0] == 0
    again = pids(agent.until(lambda s: s.state == "ready" and pids(s)["base"] != before["base"]))
    assert again["api"] == started["api"]
    assert agent.ctl("pause", "site")[0] == 0
    agent.until(lambda s: [x.state for x in s.services if x.name == "site"] == ["paused"])
    code, _, complaint = agent.ctl("start", "site")
    assert (code, "extsloaderctl resume site" in complaint) == (1, True)
    agent.kill()
    agent.start()
    held = {"base": "ready", "api": "ready", "site": "paused"}
    agent.until(lambda s: {x.name: x.state for x in s.services} == held)
    assert agent.ctl("resume", "site")[0] == 0
    agent.until(lambda s: {x.state for x in s.services} == {"ready"})
    assert agent.ctl("stop", "nobody")[0] == 1


def test_a_reload_tells_what_came_of_it(agent: RealAgent, stick: LoopDevice, good: Path) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    configure(agent, '[rollout]\ndeny = ["site"]\n[limits]\npids = 999\n')
    code, said, hint = agent.ctl("reload")
    assert code == 0
    assert said == "changed: rollout.deny; only after a restart of the agent: limits.pids\n"
    assert "systemctl restart" in hint
    agent.until(lambda s: [x.state for x in s.services if x.name == "site"] == ["excluded"])
    configure(agent, "rollout = 7\n")
    code, _, complaint = agent.ctl("reload")
    assert code == 1
    assert "rollout: expected a table, got 7" in complaint
    assert "extsloader.toml: rollout" in agent.status().problems[0].message
    configure(agent, "")
    os.kill(agent.pid, signal.SIGHUP)
    after = pids(agent.until(lambda s: {x.state for x in s.services} == {"ready"}))
    assert {**after, "site": None} == {**before, "site": None}
    assert agent.status().problems == ()
    assert "operator uid 0: reload -> accepted" in agent.log()


def test_who_is_not_root_is_told_no_and_written_down(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    agent.until_ready()
    for path in (agent.root, *agent.root.parents, agent.run.parent, agent.run):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    (agent.run / "extsloader.sock").chmod(0o666)
    argv = [sys.executable, "-c", ASK, f"{agent.run}/extsloader.sock"]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "E_DENIED\n"
    assert "operator uid 65534: stop api -> denied: only root" in agent.log()
    assert states(agent)["api"] == "ready"


def test_hangups_and_stops_in_any_number(agent: RealAgent) -> None:
    for _ in range(20):
        os.kill(agent.pid, signal.SIGHUP)
    agent.status()
    assert agent.process
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        agent.process.send_signal(number)
    assert agent.process.wait(10) == 0
    agent.process = None
