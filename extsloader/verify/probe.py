"""What is on a source, found out in a helper: reading an untrusted medium can hang or fail.

`extsloader.verify.__main__` runs it. It imports no pydantic and
no cryptography: there is one for every medium, also for those that hold nothing of ours.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

from extsloader.image.superblock import Partition, read_partition, read_superblock, reader
from extsloader.model.source import Source, Superblock
from extsloader.verify.carrier import look_into
from extsloader.verify.identity import open_disk, refusal
from extsloader.verify.medium import open_medium


def probe_source(source: Source, files: Sequence[str] = ()) -> Superblock:
    """Read the superblock, the image file in a carrier, and a partition's entry in its table.

    Raises ImageRefusedError: E_GONE for another medium, E_BUSY, E_PATH for a link, E_LAYOUT or
    E_FS_TYPE for a carrier that is damaged or cannot be read, or E_IO.
    """
    with open_medium(source) as medium:
        superblock = look_into(medium, read_superblock(medium.read), files)
        partition = _find_partition(source) if source.partition else None
        medium.check()  # after all reading: bytes from before a change belong to nobody
    if partition is None:
        return superblock
    return replace(superblock, partition_label=partition.label, partition_type=partition.type)


def _find_partition(source: Source) -> Partition | None:
    disk = open_disk(source)
    try:
        partition = read_partition(reader(disk), source.partition)
    except OSError as error:
        raise refusal(source, error) from error
    finally:
        os.close(disk)
    # Partitions can be set by hand (BLKPG): the entry of another size describes something else.
    return partition if partition and partition.size == source.size else None
