"""What an operator may ask for, and what he is told."""

from enum import StrEnum

from msgspec import Struct


class Verb(StrEnum):
    """The first five are about one service."""

    START = "start"
    STOP = "stop"  # until it is started, or the device boots
    RESTART = "restart"
    PAUSE = "pause"  # until it is resumed, also across reboots
    RESUME = "resume"
    RESCAN = "rescan"  # look at all devices and directories anew
    RELOAD = "reload"  # read the configuration anew


class Result(StrEnum):
    """What came of a request."""

    ACCEPTED = "accepted"  # it is being done
    ALREADY = "already"  # there is nothing to do
    REFUSED = "refused"
    UNKNOWN = "unknown"  # no such service
    DENIED = "denied"  # not for this user


class Answer(Struct, frozen=True, kw_only=True):
    """The message is one sentence without a full stop."""

    result: Result
    message: str
    hint: str = ""
