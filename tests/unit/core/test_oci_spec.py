"""The specification that the runtime gets."""

import json

import pytest

from extsloader.model.machine import Machine
from extsloader.model.manifest import ProbeKind, Readiness, Resources
from tests.fakes.bundles import CONFIG, good, process, spec


class TestSpec:
    def test_our_own_control_group_and_limits_are_used_with_the_bundles_device_rules(self) -> None:
        rules = [{"allow": False, "access": "rwm"}]
        linux = CONFIG["linux"] | {"resources": {"devices": rules, "memory": {"limit": 1}}}
        result = good(CONFIG | {"linux": linux})
        written = json.loads(result.spec)["linux"]
        assert written["cgroupsPath"] == "/extsloader/zeta"
        assert written["resources"] == {"devices": rules, "memory": {"limit": 128 << 20}}
        assert result.reduced == ("config.json linux.resources.memory is not used",)

    def test_every_runtime_knows_the_version(self) -> None:
        assert spec()["ociVersion"] == "1.0.2"

    def test_capabilities_that_we_do_not_hold_are_not_granted_in_any_set(self) -> None:
        asked = ["CAP_CHOWN", "CAP_SYS_RESOURCE"]
        sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
        result = good(process(capabilities=dict.fromkeys(sets, asked)))
        granted = json.loads(result.spec)["process"]["capabilities"]
        assert granted == {name: ["CAP_CHOWN"] for name in sets}
        assert result.reduced == (
            "capability CAP_SYS_RESOURCE is not granted: it is not in the agent's own bounding set",
        )

    @pytest.mark.parametrize(
        ("manifest", "bundle", "floor", "granted"),
        [(0, -999, -1000, -999), (0, -999, 0, 0), (500, -999, 0, 500), (0, 300, 0, 300)],
    )
    def test_the_oom_score_is_the_manifests_and_not_below_the_floor(
        self, manifest: int, bundle: int, floor: int, granted: int
    ) -> None:
        result = good(
            process(oomScoreAdj=bundle),
            machine=Machine(arch="amd64", min_oom_score_adj=floor),
            resources=Resources(oom_score_adj=manifest),
        )
        assert json.loads(result.spec)["process"]["oomScoreAdj"] == granted
        assert bool(result.reduced) == ((manifest or bundle) < floor)

    def test_limits_above_our_own_are_lowered(self) -> None:
        limits = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 10_000_000}]
        machine = Machine(arch="amd64", rlimits=(("RLIMIT_NOFILE", 4096),))
        result = good(process(rlimits=limits), machine=machine)
        assert json.loads(result.spec)["process"]["rlimits"] == [
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 4096}
        ]
        assert result.reduced[0].startswith("RLIMIT_NOFILE 10000000 is lowered to 4096")

    def test_no_terminal_and_no_annotations_reach_the_runtime(self) -> None:
        config = process(terminal=True) | {"annotations": {"run.oci.keep_original_groups": "1"}}
        result = good(config)
        written = json.loads(result.spec)
        assert written["process"]["terminal"] is False
        assert "annotations" not in written
        assert result.reduced == (
            "config.json annotations is not used",
            "config.json process.terminal is not used",
        )

    def test_a_service_that_notifies_finds_its_socket(self) -> None:
        result = good(readiness=Readiness(kind=ProbeKind.NOTIFY))
        written = json.loads(result.spec)
        assert "NOTIFY_SOCKET=/.extsloader/notify" in written["process"]["env"]
        assert written["mounts"][-1]["source"] == result.notify_dir
        assert result.notify_dir in {step.target for step in result.mounts}
