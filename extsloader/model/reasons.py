"""The closed list of reasons why something was refused, failed or has to wait."""

from dataclasses import dataclass
from enum import StrEnum, unique


@unique
class Code(StrEnum):
    """Stable codes: operators search for them and tests assert on them, never on prose."""

    GONE = "E_GONE"
    IO = "E_IO"
    TIMEOUT = "E_TIMEOUT"
    BUSY = "E_BUSY"
    FILTER = "E_FILTER"
    FS_TYPE = "E_FS_TYPE"
    LAYOUT = "E_LAYOUT"
    ENVELOPE = "E_ENVELOPE"
    SIGNATURE = "E_SIGNATURE"
    THRESHOLD = "E_THRESHOLD"
    KEYS = "E_KEYS"
    SCHEMA = "E_SCHEMA"
    LIMIT = "E_LIMIT"
    SIZE = "E_SIZE"
    DIGEST = "E_DIGEST"
    VERITY = "E_VERITY"
    EXPIRED = "E_EXPIRED"
    CLOCK = "E_CLOCK"
    ROLLBACK = "E_ROLLBACK"
    EQUIVOCATION = "E_EQUIVOCATION"
    REVOKED = "E_REVOKED"
    INCOMPATIBLE = "E_INCOMPATIBLE"
    IMAGE_FS = "E_IMAGE_FS"
    MOUNT = "E_MOUNT"
    BUNDLE = "E_BUNDLE"
    PATH = "E_PATH"
    DAG = "E_DAG"
    RESOURCE = "E_RESOURCE"
    STATE = "E_STATE"
    RUNTIME = "E_RUNTIME"
    READINESS = "E_READINESS"
    EXIT = "E_EXIT"
    HEALTH = "E_HEALTH"
    DEPENDENCY = "E_DEPENDENCY"
    HELPER = "E_HELPER"


MEANINGS: dict[Code, str] = {
    Code.GONE: "the medium was taken away while it was in use",
    Code.IO: "the medium or the disk returned a read or write error",
    Code.TIMEOUT: "a deadline passed",
    Code.BUSY: "something is still in use by somebody else",
    Code.FILTER: "the configured filters leave this device out",
    Code.FS_TYPE: "the device holds no squashfs",
    Code.LAYOUT: "the image or its trailer does not have the documented layout",
    Code.ENVELOPE: "the signed envelope is missing or malformed",
    Code.SIGNATURE: "no accepted key signed this manifest",
    Code.THRESHOLD: "fewer distinct accepted keys signed than the policy asks for",
    Code.KEYS: "the device's own keys or key policy cannot be used",
    Code.SCHEMA: "the manifest does not fit its schema",
    Code.LIMIT: "something is larger or more than the stated limit",
    Code.SIZE: "the image is shorter or longer than its manifest says",
    Code.DIGEST: "the image's bytes are not the ones that were signed",
    Code.VERITY: "the hash tree does not belong to the image, or a block is damaged",
    Code.EXPIRED: "the manifest has expired",
    Code.CLOCK: "the manifest was issued in the future",
    Code.ROLLBACK: "the image is older than one that ran well, or jumps too far ahead",
    Code.EQUIVOCATION: "another image has the same name and sequence",
    Code.REVOKED: "the device's key policy has revoked this image",
    Code.INCOMPATIBLE: "the image is meant for another device",
    Code.IMAGE_FS: "the image's file system cannot be mounted",
    Code.MOUNT: "a mount could not be made or undone",
    Code.BUNDLE: "a service's bundle in the image is unusable",
    Code.PATH: "a path leads out of where it may lead",
    Code.DAG: "the dependencies of the services cannot be satisfied",
    Code.RESOURCE: "the device is short of memory, disk space or processes",
    Code.STATE: "the agent's own files are unusable, or it met a bug of its own",
    Code.RUNTIME: "the container runtime refused or failed",
    Code.READINESS: "the service did not become ready in time",
    Code.EXIT: "the service ended",
    Code.HEALTH: "the running service failed its health probe",
    Code.DEPENDENCY: "a service that it requires has given up",
    Code.HELPER: "the verify helper ended without a verdict",
}

TRANSIENT = frozenset({Code.IO, Code.TIMEOUT, Code.BUSY, Code.RESOURCE, Code.HELPER})
"""Worth another try on the same medium: the others cannot change without new bytes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is not as wanted: a code for machines, a sentence and a next step for people.

    `message` reads "cannot X: reason", lower case, no full stop, with expected and got.
    """

    code: Code
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
