"""Hostile bundles against the real kernel and runc; each attack is shown to work unguarded."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extsloader.adapters.mounts.steps import do, undo
from extsloader.core.ceiling import DENIED, DEV, SECCOMP
from extsloader.core.oci_mounts import SAFE_OVERLAY
from extsloader.model.errors import MachineError
from extsloader.model.events import Cause, CauseKind
from extsloader.model.plan import ContainerPlan, MountKind, MountStep
from extsloader.model.reasons import Code
from extsloader.model.settings import Ceiling
from tests.integration.containers import PROC, Bench, install_shell

pytestmark = pytest.mark.hostile

ALL = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_SYS_BOOT",
    "CAP_SYS_TIME",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_PACCT",
    "CAP_DAC_READ_SEARCH",
    "CAP_BPF",
    "CAP_PERFMON",
)
CALLS = "unshare -U true || echo no-unshare; mount -t tmpfs x /tmp || echo no-mount"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "bundle/rootfs"
    (root / "bin").mkdir(parents=True)
    install_shell(root)
    for name in ("proc", "tmp"):
        (root / name).mkdir()
    return root


@pytest.fixture
def name(tmp_path: Path) -> Iterator[str]:
    found = f"extst-{tmp_path.name[-20:].replace('_', '-')}"
    yield found
    command = ["runc", "--root", f"{tmp_path}/state", "delete", "-f", found]
    subprocess.run(command, check=False, capture_output=True, timeout=20)


def run(
    rootfs: Path,
    name: str,
    script: str,
    linux: dict[str, Any],
    *caps: str,
    mounts: Sequence[dict[str, Any]] = (),
) -> str:
    """What the script says in a container that nobody guards but `linux`."""
    process = {
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": True,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
    }
    spec = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": f"{rootfs}"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *mounts],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "cgroupsPath": f"/{name}"}
        | linux,
    }
    (rootfs.parent / "config.json").write_text(json.dumps(spec))
    done = subprocess.run(
        ["runc", "--root", f"{rootfs.parents[1]}/state", "run", "-b", f"{rootfs.parent}", name],
        check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30,
    )  # fmt: skip
    return done.stdout + done.stderr


def check(rootfs: Path, place: str = "dev/") -> None:
    step = MountStep(kind=MountKind.CHECK, target=f"{rootfs}", options=(f"{rootfs}/{place}",))
    do(step, f"{rootfs.parents[1]}")


@pytest.mark.parametrize("target", ["/tmp", "../outside", "tmp"])
def test_h143_dev_is_a_link(rootfs: Path, target: str) -> None:
    (rootfs / "dev").symlink_to(target)
    with pytest.raises(MachineError) as refused:
        check(rootfs)
    assert refused.value.problem.code is Code.BUNDLE


def test_h132_a_mount_point_is_behind_a_link(rootfs: Path) -> None:
    (rootfs / "a").symlink_to("/etc")
    with pytest.raises(MachineError) as refused:
        check(rootfs, "a/b")
    assert refused.value.problem.code is Code.BUNDLE


def test_h143_dev_is_a_file_or_missing_or_good(rootfs: Path) -> None:
    check(rootfs)  # the runtime makes it
    (rootfs / "dev").touch()
    with pytest.raises(MachineError):
        check(rootfs)
    check(rootfs, "proc/")


@pytest.mark.root
def test_h143_without_the_check_runc_follows_dev(rootfs: Path, name: str) -> None:
    outside = rootfs.parents[1] / "outside"
    outside.mkdir()
    (rootfs / "dev").symlink_to(outside)
    run(rootfs, name, "true", {})
    assert [path.name for path in outside.iterdir()]  # on the host


@pytest.mark.root
def test_h135_masks_are_what_a_link_at_dev_null_leads_to(rootfs: Path, name: str) -> None:
    """The shape of CVE-2025-31133."""
    (rootfs / "dev").mkdir()
    (rootfs / "dev/null").symlink_to("/bait")
    (rootfs / "bait").write_text("taken")
    masked = {"maskedPaths": ["/proc/keys"]}
    script = "head /proc/keys > /said"  # what it prints goes to /dev/null's target, too
    run(rootfs, name, script, masked)
    assert (rootfs / "said").read_text() == "taken"

    run(rootfs, name, script, masked, mounts=[DEV])
    assert (rootfs / "said").read_text() == ""


@pytest.mark.root
def test_h141_seccomp_refuses_what_would_be_done(rootfs: Path, name: str) -> None:
    assert run(rootfs, name, CALLS, {}, "CAP_SYS_ADMIN") == ""

    said = run(rootfs, name, CALLS, {"seccomp": SECCOMP}, "CAP_SYS_ADMIN")
    assert "no-unshare" in said
    assert "no-mount" in said


@pytest.mark.root
def test_h141_seccomp_refuses_every_call_of_the_list(rootfs: Path, name: str) -> None:
    library = pytest.importorskip("ctypes").CDLL("libseccomp.so.2")
    numbers = {call: library.seccomp_syscall_resolve_name(call.encode()) for call in DENIED}
    # Those that this libseccomp has never heard of cannot be refused by it, either.
    numbers = {call: number for call, number in numbers.items() if number >= 0}
    assert len(numbers) >= len(DENIED) - 1
    script = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n" + "".join(
        f"libc.syscall({number}, 0, 0, 0, 0, 0)\n"
        f"if ctypes.get_errno() != 1: print('{call}')\nctypes.set_errno(0)\n"
        for call, number in numbers.items()
    )
    (rootfs / "calls.py").write_text(script)
    system = [path for path in ("/usr", "/lib", "/lib64") if Path(path).exists()]
    binds = [
        {"destination": path, "source": path, "options": ["rbind", "ro"]}
        for path in (*system, sys.base_prefix)
    ]
    command = f"{os.path.realpath(sys.executable)} /calls.py && echo done"
    said = run(rootfs, name, command, {"seccomp": SECCOMP}, *ALL, mounts=binds)
    assert said == "done\n"


@pytest.mark.root
def test_h146_the_runtime_is_not_what_the_entrypoint_reaches(rootfs: Path, name: str) -> None:
    """The shape of CVE-2019-5736."""
    runc = Path(shutil.which("runc") or "")
    before = runc.read_bytes()
    (rootfs / "bin/evil").write_text("#!/proc/self/exe\n")
    (rootfs / "bin/evil").chmod(0o755)
    run(rootfs, name, "echo spoilt > /proc/1/exe; exec /bin/evil", {})
    assert runc.read_bytes() == before


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Path]:
    """Two directories on a file system that is as safe as an image's."""
    run = tmp_path / "run"
    place = MountStep(
        kind=MountKind.MOUNT,
        fs_type="tmpfs",
        source="extst",
        target=f"{run}",
        options=("nosuid", "nodev"),
    )
    run.mkdir()
    do(place, f"{tmp_path}")
    (run / "a").mkdir()
    (run / "b").mkdir()
    yield run
    undo(place, f"{tmp_path}")


def join_layers(layers: Path, *options: str) -> Path:
    target = layers / f"merged-{len(options)}"
    lower = f"lowerdir={layers}/a:{layers}/b"
    step = MountStep(
        kind=MountKind.MOUNT,
        fs_type="overlay",
        source="overlay",
        target=f"{target}",
        options=(lower, *options),
    )
    do(step, f"{layers}")
    return target


@pytest.mark.root
def test_h120_an_overlay_keeps_device_nodes_inert(layers: Path) -> None:
    os.mknod(layers / "a/zero", 0o20666, os.makedev(1, 5))
    with pytest.raises(PermissionError):
        (layers / "a/zero").open()
    (join_layers(layers) / "zero").open().close()  # the flags of the layers are lost

    with pytest.raises(PermissionError):
        (join_layers(layers, *SAFE_OVERLAY) / "zero").open()


@pytest.mark.root
def test_h119_an_overlay_believes_no_attribute(layers: Path) -> None:
    (layers / "a/public").mkdir()
    (layers / "b/hidden").mkdir()
    (layers / "b/hidden/secret").touch()
    os.setxattr(layers / "a/public", "trusted.overlay.redirect", b"/hidden")
    assert (join_layers(layers) / "public/secret").exists()

    with suppress(PermissionError):  # of the directory that is led astray
        assert not (join_layers(layers, *SAFE_OVERLAY) / "public/secret").exists()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    bench.settings = replace(bench.settings, ceiling=Ceiling())
    yield bench
    await bench.sweep()


@pytest.mark.root
async def test_h141_a_service_under_the_default_profile_is_confined(bench: Bench) -> None:
    script = "grep -E '^(NoNewPrivs|Seccomp|CapBnd):' /proc/self/status; (echo > /sys/x) || exit 3"
    await bench.run("web", script, mounts=[PROC, {"destination": "/sys", "type": "sysfs"}])
    assert (await bench.next_end())[2] == Cause(CauseKind.CODE, 3)
    log = bench.log("web")
    assert "NoNewPrivs:\t1" in log
    assert "Seccomp:\t2" in log
    assert "CapBnd:\t0000000000000000" in log


@pytest.mark.root
async def test_h143_links_that_a_service_left_are_found_at_its_next_start(bench: Bench) -> None:
    service = bench.add_bundle("web", "ln -s /tmp /sneaky", mounts=[PROC])
    plan = bench.plan(service)
    (Path(plan.bundle_dir) / "rootfs/dev").rmdir()
    (Path(plan.bundle_dir) / "rootfs/dev").symlink_to("/tmp")
    with pytest.raises(MachineError) as refused:
        bench.mounts.apply(plan.mounts)
    assert refused.value.problem.code is Code.BUNDLE


@pytest.mark.root
@pytest.mark.parametrize("kind", ["directory", "not-executable"])
async def test_h145_a_program_that_is_none_is_refused(bench: Bench, kind: str) -> None:
    plan, program = plan_bad_program(bench)
    program.mkdir() if kind == "directory" else program.touch(0o644)
    with pytest.raises(MachineError, match=r"permission denied|is a directory") as failed:
        await bench.runtime.create(plan)
    assert failed.value.problem.code is Code.RUNTIME


@pytest.mark.root
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("#!/missing\n", "no such file or directory", id="H145-interpreter"),
        pytest.param("\x7fELF\x02\x01\x01" + "\0" * 57, "exec format error", id="H145-machine"),
    ],
)
async def test_a_program_that_cannot_start_says_why(
    bench: Bench, content: str, reason: str
) -> None:
    plan, program = plan_bad_program(bench)
    program.write_text(content)
    program.chmod(0o755)
    await bench.runtime.create(plan)
    await bench.runtime.start(plan.service)
    assert (await bench.next_end())[2].kind is CauseKind.CODE
    assert reason in bench.log("web")


def plan_bad_program(bench: Bench) -> tuple[ContainerPlan, Path]:
    process = {"args": ["/bin/bad"], "env": ["PATH=/bin"], "cwd": "/"}
    plan = bench.plan(bench.add_bundle("web", "", process=process))
    return plan, Path(plan.bundle_dir) / "rootfs/bin/bad"
