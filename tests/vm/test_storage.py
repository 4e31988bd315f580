"""What a device takes from outside at its boot: CONFIG and P3 of its own disk, and no keys."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extsloader.imagebuild.disk.fat import Fat, make_fat
from extsloader.imagebuild.disk.image import assemble
from extsloader.imagebuild.disk.qemu import Machine, Via, plan_pkgs
from extsloader.imagebuild.disk.table import MIB, Sizes, plan_table
from extsloader.imagebuild.verbs.machine import with_config
from tests.fakes.guest import booted
from tests.fakes.real_images import make_image, service
from tests.vm.conftest import Dist

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]


async def test_config_configures_the_device_but_brings_no_keys_and_no_stick_takes_its_place(
    dist: Dist, tmp_path: Path
) -> None:
    foreign = Ed25519PrivateKey.generate()
    image = tmp_path / "foreign.img"
    make_image(image, foreign, service("alpha"))
    machine = Machine(
        disk=with_config(dist.disk, make_conf(tmp_path, foreign), tmp_path),
        kernel=dist.kernel,
        persist=make_new_persist(tmp_path),
    )
    stick = plan_pkgs(Via.USB, make_config_stick(tmp_path))

    async with booted(machine, *stick) as guest:
        await guest.open_shell()
        await guest.run("extsloaderctl wait --for searching --timeout 60")
        assert await guest.run("cat /run/eve-hv-type") == "kvm"
        assert await guest.run("findmnt -no SOURCE /config; ls /config/stick || true") == (
            "/dev/vda3\nls: cannot access '/config/stick': No such file or directory"
        )
        assert await guest.run("findmnt -no FSTYPE,SOURCE /persist") == "ext4   /dev/vdb1"
        assert await guest.run("stat -c %G /run/extsloader/extsloader.sock") == "disk"

        await guest.attach("foreign", image, Via.VIRTIO)

        await guest.journal.expect("^candidate /dev/vdc: .* -> refused: .*E_SIGNATURE")


def make_conf(folder: Path, key: Ed25519PrivateKey) -> Path:
    """Files for CONFIG: settings, and a key that they want to be accepted."""
    conf = folder / "conf"
    (conf / "keys").mkdir(parents=True)
    (conf / "extsloader.toml").write_text('socket_group = "disk"\n[paths]\nkeys = "/config/keys"\n')
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (conf / "keys/foreign.pem").write_bytes(pem)
    return conf


def make_config_stick(folder: Path) -> Path:
    """A stick with a partition CONFIG, which the kernel names before the device's own."""
    fat, disk, file = folder / "stick.fat", folder / "stick.disk", folder / "stick"
    file.write_text("")
    make_fat(fat, Fat(label="EVE", serial="57100002", size=4 * MIB), {"stick": file})
    (partition,) = plan_table(Sizes(efi=0, imga=0, config=5 * MIB))
    assemble(disk, [(partition, fat)])
    return disk


def make_new_persist(folder: Path) -> Path:
    """A disk with a P3 that nobody has used yet."""
    (partition,) = plan_table(Sizes(efi=0, imga=0, config=0, persist=64 * MIB))
    disk = folder / "persist.disk"
    assemble(disk, [(partition, None)])
    return disk
