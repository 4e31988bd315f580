"""Verbs about container images that are made elsewhere."""

from argparse import Namespace

from extsloader.imagebuild.oci.references import format_locks, pull_images
from extsloader.imagebuild.plan import Cache
from extsloader.imagebuild.prepare import find_places, load_locks
from extsloader.imagebuild.steps import whole_file


def pull(args: Namespace) -> None:
    """Bring images into the cache."""
    locks = load_locks(args.images_lock)
    with Cache(root=args.cache).locked():
        digests = pull_images(args.references, find_places(args), locks, update=args.update)
    for reference, digest in digests.items():
        print(f"{reference} {digest}")
    if args.update:
        with whole_file(args.images_lock) as unfinished:
            unfinished.write_text(format_locks(locks | digests))
