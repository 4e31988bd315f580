"""Planning one service from its bundle."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.model.manifest import Resources
from extsloader.model.reasons import Code, Problem
from tests.fakes.bundles import CONFIG, good, plan, process, refused


class TestPlan:
    def test_defaults_of_the_device_fill_what_the_manifest_leaves_open(self) -> None:
        assert good().resources == Resources(memory=128 << 20, pids=256)
        assert good(resources=Resources(memory=5, pids=6)).resources == Resources(memory=5, pids=6)


class TestCarelessBundles:
    def test_all_problems_are_told_at_once(self) -> None:
        config = process(args=[], cwd="/proc/self/fd/7", env=["NOVALUE"], user={"uid": -1}) | {
            "hooks": {"prestart": [{"path": "/bin/sh"}]},
            "linux": {"namespaces": [{"type": "mount", "path": "/proc/1/ns/mnt"}]},
        }
        problem = refused(config, {"mounts": [{"destination": "/etc/x", "type": "tmpfs"}]})
        assert problem.code is Code.BUNDLE
        for part in (
            "cannot use the bundle of zeta: ",
            "config.json hooks are not allowed",
            "config.json process.args must name the program to run",
            "config.json process.cwd must not be in /proc or /sys, got '/proc/self/fd/7'",
            "config.json process.env must hold NAME=VALUE, got 'NOVALUE'",
            "config.json process.user.uid must be between 0 and 2147483647, got -1",
            "config.json linux.namespaces must hold a new mount namespace",
            "runtime.json mounts[0].destination must be in the root file system",
        ):
            assert part in problem.message

    def test_a_message_is_bounded_and_shows_no_control_characters(self) -> None:
        env = [f"\x1b[31m{i}" for i in range(500)]
        message = refused(process(env=env)).message
        assert len(message) < 4000
        assert "\x1b" not in message
        assert "and 480 more" in message

    def test_values_of_the_environment_are_not_shown(self) -> None:
        assert "secret" not in refused(process(env=["=secret"])).message

    @pytest.mark.parametrize("key", ["process", "root", "mounts", "linux", "hostname"])
    @pytest.mark.parametrize("value", [1, "x", [1], {"a": 1}, True])
    def test_wrong_types_never_crash(self, key: str, value: object) -> None:
        plan(CONFIG | {key: value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("/../x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
PROCESS_KEYS = ("args", "env", "cwd", "user", "capabilities", "rlimits", "oomScoreAdj")
MOUNT = st.dictionaries(st.sampled_from(("destination", "type", "source", "options")), JSON)


@given(
    process=st.dictionaries(st.sampled_from(PROCESS_KEYS), JSON),
    linux=st.dictionaries(st.sampled_from(("namespaces", "resources", "sysctl", "devices")), JSON),
    mounts=st.lists(MOUNT, max_size=3),
    runtime=st.dictionaries(st.sampled_from(("mkdir", "cgroups", "bindNS", "interfaces")), JSON),
)
def test_any_bundle_gives_a_plan_or_a_problem(
    process: Any, linux: Any, mounts: Any, runtime: Any
) -> None:
    config = {"process": process, "linux": linux, "mounts": mounts}
    result = plan(config, {"mounts": mounts, **runtime})
    if isinstance(result, Problem):
        assert result.code in {Code.BUNDLE, Code.PATH}
    else:
        assert all(".." not in step.target.split("/") for step in result.mounts)
