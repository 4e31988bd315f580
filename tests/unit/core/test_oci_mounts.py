"""From runtime.json to mounts."""

import json

import pytest

from extsloader.core.oci_mounts import SAFE, SAFE_OVERLAY
from extsloader.model.plan import MountKind
from extsloader.model.reasons import Code, Problem
from tests.fakes.bundles import (
    CONFIG,
    IMAGE,
    OVERLAY,
    OWN,
    ROOTFS,
    RUN,
    UPPER,
    good,
    mounts_of,
    plan,
    refused,
    spec,
)


class TestRoot:
    def test_shared_content_is_taken_from_the_image_and_written_to_a_limited_tmpfs(self) -> None:
        tmpfs, root = mounts_of(good(CONFIG, {"mounts": [OVERLAY]}))
        assert tmpfs == (UPPER, "tmpfs", ("nosuid", "nodev", "mode=0700", f"size={64 << 20}"))
        assert root[0] == ROOTFS
        assert root[2] == (
            *SAFE_OVERLAY,
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
                "redirect_dir=on",
            ],
        }
        result = good(CONFIG, {"mounts": [overlay]})
        assert mounts_of(result)[2][2] == (
            *SAFE,
            f"lowerdir={IMAGE}/containers/services/b/lower:{IMAGE}{OWN}/rootfs",
            f"upperdir={UPPER}/more/upper",
            "workdir=/persist/zeta/work",
            "redirect_dir=on",
            "redirect_dir=nofollow",  # the kernel takes the last one
            "metacopy=off",
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
