"""Verbs that make what a machine boots."""

import shutil
from argparse import Namespace
from pathlib import Path

from extsloader.imagebuild.disk.image import Contents, make_disk
from extsloader.imagebuild.disk.table import MIB, Sizes
from extsloader.imagebuild.linuxkit.definition import load_definition
from extsloader.imagebuild.plan import Cache, plan_disk, plan_squashfs
from extsloader.imagebuild.prepare import prepare_layout
from extsloader.imagebuild.sizes import describe, measure
from extsloader.imagebuild.steps import run_steps, timed, whole_file
from extsloader.imagebuild.tree import read_tar
from extsloader.imagebuild.verbs.building import compression


def size(args: Namespace) -> None:
    """Say what is big in a root file system."""
    sizes = measure(read_tar(args.tar))
    print("\n".join(describe(sizes, args.top)))
    print(f"{sizes.total() / 1e6:8.1f} MB  in all, before compression")


def disk(args: Namespace) -> None:
    """Make a bootable disk."""
    contents = _contents(args, tar=args.tar, rootfs=args.rootfs, pkgs=args.pkgs)
    with timed("bootable disk"), whole_file(args.output) as unfinished:
        make_disk(unfinished, contents, raw=args.raw)


def bootstrap(args: Namespace) -> None:
    """From definitions to the squashfs of the bootstrap image and a disk that boots it."""
    definition = load_definition(*args.definition)
    with Cache(root=args.cache).locked():
        steps = prepare_layout(definition, args)
        layout = steps[-1].output
        steps.append(plan_squashfs(steps[-1], compression(args), args.limit))
        wanted = {args.out / "installer" / "rootfs-bootstrap.img": steps[-1].output}
        if not args.no_disk:
            steps.append(plan_disk(_contents(args, tar=layout, rootfs=steps[-1].output)))
            wanted[args.out / "live-bootstrap.qcow2"] = steps[-1].output
        run_steps(steps)
        for path, output in wanted.items():
            _hand_over(output, path)


def _contents(args: Namespace, *, tar: Path, rootfs: Path, pkgs: Path | None = None) -> Contents:
    room = -(-pkgs.stat().st_size // MIB) * MIB if pkgs else 0
    sizes = Sizes(efi=args.size_efi, imga=args.size_imga, pkgs=room, persist=args.size_persist)
    return Contents(
        tar=tar, rootfs=rootfs, conf=args.conf, pkgs=pkgs,
        hypervisor=args.hv, architecture=args.arch, more_words=args.cmdline_add, sizes=sizes,
    )  # fmt: skip


def _hand_over(output: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        shutil.copyfile(output, unfinished)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
