"""What went into the TPM's register for images (PCR 12) since the device booted."""

from dataclasses import dataclass
from enum import StrEnum

from extsloader.model.ids import Digest

PCR = 12
"""EVE's for extensions: vault and attestation know it by this number."""

BANK = "sha256"


class Measuring(StrEnum):
    """How far the measurement of an image is."""

    NEVER = "not measured"  # nobody has asked for it
    ASKED = "measuring"
    DONE = "measured"
    FAILED = "measurement failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One event of the log. It is written before the register is extended, `sure` after that."""

    image: Digest
    before: bytes  # the register's value then
    sure: bool = False
