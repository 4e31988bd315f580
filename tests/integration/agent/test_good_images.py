"""Good images reach the device in every way that is promised, and their services run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.real_agent import RealAgent, StartAgent, find_service, pids
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import image_end, read_envelope, read_manifest
from tests.fakes.real_verity import NO_VERITY

pytestmark = pytest.mark.root

MIB = 1 << 20


def test_a_stick_with_a_good_image(agent: RealAgent, stick: LoopDevice, good: Path) -> None:
    assert agent.status().state == "searching"
    stick.plug_in(good)
    status = agent.until_ready()
    assert status.image
    integrity = "store" if NO_VERITY else "verity"
    assert (status.image.source, status.image.integrity) == (stick.node, integrity)
    assert agent.stored() == [f"{read_manifest(good).image.digest}.img"]
    assert agent.mounts().count(f"{agent.run}/images/{status.image.digest[:12]}") == 1
    # Each waited for what it requires, and its container really is there.
    since = [find_service(status, name).since for name in ("base", "api", "site")]
    assert since == sorted(since)
    assert pids(status).keys() == {"base", "api", "site"}
    assert all(Path(f"/proc/{pid}").exists() for pid in pids(status).values())


def test_services_stop_in_the_opposite_order(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    agent.until_ready()
    assert agent.stop() == 0
    removed = re.findall(r"service (\w+)\S* .*removing\S* .*idle", agent.log())
    assert removed == ["site", "api", "base"], agent.log()


def test_what_extsloaderctl_says(agent: RealAgent, stick: LoopDevice, good: Path) -> None:
    assert agent.ctl("status")[0] == 1
    assert agent.ctl("wait", "--for", "ready", "--timeout", "0.1")[0] == 1
    stick.plug_in(good)
    assert agent.ctl("wait", "--timeout", "10")[0] == 0
    code, said, _ = agent.ctl("status")
    assert (code, said.startswith("ready")) == (0, True), said
    code, said, _ = agent.ctl("candidates")
    assert (code, f"{stick.node} " in said, "verified" in said) == (0, True, True), said
    code, said, _ = agent.ctl("explain", "site")
    assert (code, said.splitlines()[0]) == (0, "site is ready")
    assert agent.ctl("explain", "nobody")[0] == 1
    assert agent.stop() == 0
    code, _, complaint = agent.ctl("status")
    assert (code, "is extsloaderd running" in complaint) == (3, True), complaint


def test_the_stick_is_needed_no_longer_than_for_the_copy(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    stick.pull_out()
    assert agent.until_gone(stick.node).verdict == "verified"
    status = agent.status()
    assert (status.state, pids(status)) == ("ready", before)
    assert status.image
    assert not status.image.source_present


def test_a_device_larger_than_the_image(
    agent: RealAgent, stick: LoopDevice, good: Path, tmp_path: Path
) -> None:
    padded = Path(shutil.copy(good, tmp_path))
    with padded.open("ab") as file:
        file.write(b"\xa5" * 3 * MIB)
    stick.plug_in(padded)
    agent.until_ready()
    assert agent.until_verdict(stick.node).size == padded.stat().st_size


def test_a_partition_is_found_by_its_label(
    start_agent: StartAgent, stick: LoopDevice, good: Path, tmp_path: Path
) -> None:
    agent = start_agent(stick.node, filters__partition_labels="pkgs")
    stick.plug_in(_partitioned(tmp_path / "disk", good, labels=("other", "pkgs")))
    assert agent.until_verdict(stick.node).code == "E_FS_TYPE"  # one with partitions is not probed
    stick.show_partitions()
    status = agent.until_ready()
    assert status.image
    assert status.image.source == f"{stick.node}p2"
    other = agent.until_verdict(f"{stick.node}p1")
    assert (other.verdict, other.code) == ("ignored", "E_FILTER")


def _partitioned(disk: Path, image: Path, labels: tuple[str, ...]) -> Path:
    """A disk with the same image in several partitions."""
    size = -(-image.stat().st_size // MIB) * MIB
    places = [MIB + number * size for number in range(len(labels))]
    table = [
        f"start={place // 512}, size={size // 512}, name={label}"
        for place, label in zip(places, labels, strict=True)
    ]
    with disk.open("wb") as file:
        for place in places:
            file.seek(place)
            file.write(image.read_bytes())
        file.truncate(places[-1] + size + MIB)
    script = "\n".join(["label: gpt", *table])
    argv = ["sfdisk", "--quiet", "--no-reread", str(disk)]
    subprocess.run(argv, input=script, text=True, check=True, capture_output=True)
    return disk


def test_a_file_in_a_watched_directory(
    start_agent: StartAgent, stick: LoopDevice, good: Path, tmp_path: Path
) -> None:
    agent = start_agent(stick.node, paths__watch=tmp_path, udev="false")
    shutil.copy(good, tmp_path / "pkgs.part")
    (tmp_path / "pkgs.part").rename(tmp_path / "pkgs.img")
    status = agent.until_ready()
    assert status.image
    assert status.image.source == f"{tmp_path}/pkgs.img"
    (tmp_path / "pkgs.img").unlink()
    assert agent.until_gone(tmp_path / "pkgs.img").verdict == "verified"
    assert agent.status().state == "ready"


def test_a_file_with_its_manifest_beside_it(
    start_agent: StartAgent, stick: LoopDevice, good: Path, tmp_path: Path
) -> None:
    agent = start_agent(stick.node, paths__watch=tmp_path, udev="false")
    (tmp_path / "pkgs.img.manifest.json").write_bytes(read_envelope(good))
    bare = tmp_path / "pkgs.part"
    shutil.copy(good, bare)
    with bare.open("r+b") as file:
        file.truncate(image_end(good))
    bare.rename(tmp_path / "pkgs.img")
    agent.until_ready()


def test_a_newer_image_stands_by_until_the_next_start(
    agent: RealAgent, stick: LoopDevice, good: Path, newer: Path
) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    stick.pull_out()
    agent.until_gone(stick.node)
    stick.plug_in(newer)
    assert "newer than the active image (2 > 1)" in agent.until_verdict(stick.node).reason
    status = agent.status()
    assert (status.state, pids(status)) == ("ready", before)
    assert len(agent.stored()) == 2

    assert agent.stop() == 0
    agent.start()
    status = agent.until_ready()
    assert status.image
    assert (status.image.sequence, len(status.services)) == (2, 2)
