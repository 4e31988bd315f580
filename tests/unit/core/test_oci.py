"""Planning one service from a bundle as LinuxKit lays it out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.core.oci import plan_container
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.machine import Machine
from extsloader.model.manifest import ProbeKind, Readiness, Resources, Service
from extsloader.model.plan import Bundle, ContainerPlan, MountKind
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings

IMAGE = "/run/extsloader/images/0123456789ab"
DIGEST = Digest("0123456789ab" + "0" * 52)
RUN = "/run/extsloader"
OWN = "/containers/services/zeta"
UPPER = f"{RUN}/uppers/zeta-0123456789ab"
ROOTFS = f"{RUN}/bundles/zeta/rootfs"

CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.1",
    "process": {"args": ["/bin/svc"], "cwd": "/", "env": ["PATH=/bin"]},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": "/eve/services/zeta"},
}
OVERLAY = {
    "destination": f"{OWN}/rootfs",
    "type": "overlay",
    "source": "overlay",
    "options": [
        "lowerdir=/containers/onboot/000-setup/lower",
        f"upperdir={OWN}/tmp/upper",
        f"workdir={OWN}/tmp/work",
    ],
}
MACHINE = Machine(arch="amd64", capabilities=frozenset({"CAP_NET_ADMIN", "CAP_CHOWN"}))


def plan(
    config: object = CONFIG,
    runtime: object = None,
    machine: Machine = MACHINE,
    **service: Any,
) -> ContainerPlan | Problem:
    bundle = Bundle(
        service=ServiceName("zeta"),
        config=config if isinstance(config, str) else json.dumps(config),
        runtime=runtime if isinstance(runtime, str) else json.dumps(runtime) if runtime else "",
    )
    wanted = Service(name=ServiceName("zeta"), bundle=OWN[1:], **service)
    return plan_container(bundle, wanted, IMAGE, DIGEST, Settings(), machine)


def good(*arguments: Any, **named: Any) -> ContainerPlan:
    result = plan(*arguments, **named)
    assert isinstance(result, ContainerPlan), result
    return result


def refused(*arguments: Any, **named: Any) -> Problem:
    result = plan(*arguments, **named)
    assert isinstance(result, Problem), result
    return result


def spec(*arguments: Any, **named: Any) -> Any:
    return json.loads(good(*arguments, **named).spec)


def process(**changes: object) -> dict[str, Any]:
    return CONFIG | {"process": CONFIG["process"] | changes}


def mounts_of(result: ContainerPlan) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (step.target, step.source, step.options)
        for step in result.mounts
        if step.kind is not MountKind.MKDIR
    ]


class TestRoot:
    def test_shared_content_is_taken_from_the_image_and_written_to_a_limited_tmpfs(self) -> None:
        tmpfs, root = mounts_of(good(CONFIG, {"mounts": [OVERLAY]}))
        assert tmpfs == (UPPER, "tmpfs", ("nosuid", "nodev", "mode=0700", f"size={64 << 20}"))
        assert root[0] == ROOTFS
        assert root[2] == (
            "nosuid",
            "nodev",
            f"lowerdir={IMAGE}/containers/onboot/000-setup/lower",
            f"upperdir={UPPER}/upper",
            f"workdir={UPPER}/work",
        )

    def test_every_directory_exists_before_it_is_mounted_on(self) -> None:
        made: set[str] = set()
        for step in good(CONFIG, {"mounts": [OVERLAY]}).mounts:
            if step.kind is MountKind.MKDIR:
                assert step.target.rpartition("/")[0] in made | {RUN}
                made.add(step.target)
            else:
                assert step.target in made
        assert {f"{UPPER}/upper", f"{UPPER}/work"} <= made

    def test_linuxkit_own_tmpfs_and_its_remount_are_replaced(self) -> None:
        own = [
            {"destination": f"{OWN}/tmp", "type": "tmpfs", "source": "tmpfs"},
            {"destination": f"{OWN}/tmp", "options": ["remount", "private"]},
        ]
        assert good(CONFIG, {"mounts": [*own, OVERLAY]}) == good(CONFIG, {"mounts": [OVERLAY]})

    @pytest.mark.parametrize(
        ("source", "lower"),
        [
            (f"{OWN}/rootfs", f"{IMAGE}{OWN}/rootfs"),
            ("/containers/services/alpha/lower", f"{IMAGE}/containers/services/alpha/lower"),
        ],
    )
    def test_a_read_only_root_is_bound_from_anywhere_in_the_image(
        self, source: str, lower: str
    ) -> None:
        bind = {"destination": f"{OWN}/rootfs", "source": source, "options": ["bind"]}
        result = good(CONFIG | {"root": {"readonly": True}}, {"mounts": [bind]})
        assert f"lowerdir={lower}" in mounts_of(result)[1][2]
        assert json.loads(result.spec)["root"] == {"path": ROOTFS, "readonly": True}

    @pytest.mark.parametrize(("readonly", "directory"), [(False, "lower"), (True, "rootfs")])
    def test_without_runtime_json_the_layout_is_the_usual_one(
        self, readonly: bool, directory: str
    ) -> None:
        result = good(CONFIG | {"root": {"readonly": readonly}})
        assert f"lowerdir={IMAGE}{OWN}/{directory}" in mounts_of(result)[1][2]


class TestRuntimeJson:
    def test_mounts_and_directories_below_run_are_made_after_the_root(self) -> None:
        runtime = {
            "mounts": [
                {"destination": "/run/beta/x", "type": "tmpfs", "options": ["size=1m"]},
                {"destination": "etc/x", "source": "/persist/x", "options": ["rbind", "ro"]},
            ],
            "mkdir": ["/run/svc", "/var/run/old", "var/lib/zeta"],
        }
        result = good(CONFIG, runtime)
        assert mounts_of(result)[2:] == [
            ("/run/beta/x", "tmpfs", ("size=1m",)),
            (f"{ROOTFS}/etc/x", "/persist/x", ("rbind", "ro")),
        ]
        directories = {s.target for s in result.mounts if s.kind is MountKind.MKDIR}
        assert {"/run/svc", "/run/old", f"{ROOTFS}/var/lib/zeta", "/run/beta"} <= directories

    def test_an_overlay_of_the_author_gets_our_paths(self) -> None:
        overlay = {
            "destination": "/run/merged",
            "type": "overlay",
            "options": [
                f"lowerdir=/containers/services/b/lower:{OWN}/rootfs",
                f"upperdir={OWN}/tmp/more/upper",
                "workdir=/persist/zeta/work",
            ],
        }
        result = good(CONFIG, {"mounts": [overlay]})
        assert mounts_of(result)[2][2] == (
            f"lowerdir={IMAGE}/containers/services/b/lower:{IMAGE}{OWN}/rootfs",
            f"upperdir={UPPER}/more/upper",
            "workdir=/persist/zeta/work",
        )

    @pytest.mark.parametrize(
        "destination",
        [
            "/etc/x",
            "/run",
            "/",
            "/run/../etc",
            "../x",
            "/run/extsloader/images/x",
            "/persist/extsloader/store",
            "/containers/services/alpha/lower",
            "/runaway",
        ],
    )
    def test_nothing_is_mounted_or_made_elsewhere(self, destination: str) -> None:
        mount = {"destination": destination, "type": "tmpfs"}
        assert refused(CONFIG, {"mounts": [mount]}).code is Code.PATH
        assert refused(CONFIG, {"mkdir": [destination]}).code is Code.PATH

    def test_a_file_system_on_a_disk_is_refused(self) -> None:
        mount = {"destination": "/run/x", "type": "ext4", "source": "/dev/sda1"}
        problem = refused(CONFIG, {"mounts": [mount]})
        assert "must be overlay, tmpfs or another virtual one, got 'ext4'" in problem.message

    @pytest.mark.parametrize("path", ["/a,upperdir=/etc", "/a:/b", "a\\b", "", "relative"])
    def test_no_path_can_smuggle_an_option(self, path: str) -> None:
        overlay = OVERLAY | {"options": ["lowerdir=/x", f"upperdir={path}", "workdir=/run/w"]}
        assert isinstance(plan(CONFIG, {"mounts": [overlay | {"destination": "/run/x"}]}), Problem)

    def test_what_is_not_done_is_said(self) -> None:
        runtime = {
            "cgroups": ["svc"],
            "interfaces": [{"name": "eth7", "add": "veth"}],
            "bindNS": {"net": "/run/netns/x", "pid": ""},
            "namespace": "other",
        }
        assert good(CONFIG, runtime).reduced == (
            "runtime.json cgroups are not made: 'svc'",
            "runtime.json interfaces are not made: 'eth7'",
            "runtime.json bindNS is not done: 'net'",
            "runtime.json namespace is not used: 'other'",
        )


VOLUME = {"destination": "/vol", "type": "bind", "source": "/containers/volumes/v_1/merged"}


class TestVolumes:
    def test_a_read_only_one_comes_straight_from_the_image(self) -> None:
        config = CONFIG | {"mounts": [VOLUME | {"options": ["ro", "rbind"]}]}
        assert spec(config)["mounts"][0]["source"] == f"{IMAGE}/containers/volumes/v_1/lower"

    def test_a_writable_one_is_a_private_copy_and_that_is_said(self) -> None:
        result = good(CONFIG | {"mounts": [VOLUME | {"options": ["rw", "rbind"]}]})
        copy = f"{UPPER}/volumes/v_1"
        assert json.loads(result.spec)["mounts"][0]["source"] == f"{copy}/merged"
        target, _, options = mounts_of(result)[2]
        assert target == f"{copy}/merged"
        assert f"lowerdir={IMAGE}/containers/volumes/v_1/lower" in options
        assert result.reduced == ("volume v_1 is a private copy: what is written is not shared",)


class TestSpec:
    def test_our_own_control_group_is_used_and_only_device_rules_are_kept(self) -> None:
        rules = [{"allow": False, "access": "rwm"}]
        linux = CONFIG["linux"] | {"resources": {"devices": rules, "memory": {"limit": 1}}}
        result = good(CONFIG | {"linux": linux})
        written = json.loads(result.spec)["linux"]
        assert written["cgroupsPath"] == "/extsloader/zeta"
        assert written["resources"] == {"devices": rules}
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

    @pytest.mark.parametrize(
        ("config", "part"),
        [
            ("", "is not usable JSON"),
            ("[]", "must be an object"),
            ('{"a": 1, "a": 2}', "key 'a' occurs twice"),
            ('{"a": NaN}', "number 'NaN' is not whole"),
            ('{"a": 1e999}', "is not whole"),
            ('{"a": %s}' % ("9" * 5000), "number of 5000 digits"),
            ("[" * 100_000, "is nested deeper"),
            ('{"a":' * 40 + "1" + "}" * 40, "is nested deeper"),
            ('{"a": "\\u0000"}', "holds NUL"),
            ('{"a": "\\ud800"}', "half a character"),
            ("\ufeff{}", "is not usable JSON"),
            (" " * (257 << 10), "is longer than"),
        ],
    )
    def test_what_is_no_clean_json_is_refused(self, config: str, part: str) -> None:
        problem = refused(config)
        assert problem.code is Code.BUNDLE
        assert part in problem.message

    def test_a_message_is_bounded_and_shows_no_control_characters(self) -> None:
        env = [f"\x1b[31m{i}" for i in range(1000)]
        message = refused(process(env=env)).message
        assert len(message) < 4000
        assert "\x1b" not in message
        assert "and 980 more" in message

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
