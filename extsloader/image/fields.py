"""What single values in a manifest may look like."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticKnownError

from extsloader.image.relations import MAX_SERVICES
from extsloader.image.strictjson import MAX_INTEGER
from extsloader.image.verity import BLOCK
from extsloader.model.ids import NAME, RESERVED
from extsloader.model.manifest import parse_time


def _check_time(text: str) -> str:
    parse_time(text)
    return text


def _check_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError("is reserved")
    return name


def at_most(count: int, *, least: int | None = None) -> tuple[FieldInfo, BeforeValidator]:
    """Length first: pydantic by itself names what is wrong with each of 10,000 items."""

    def check(value: Any) -> Any:
        if isinstance(value, list) and len(value) > count:
            found = {"field_type": "Array", "max_length": count, "actual_length": len(value)}
            raise PydanticKnownError("too_long", found)
        return value

    limits = Field(strict=False, min_length=least, max_length=count)
    return limits, BeforeValidator(check)


# The patterns are anchored and ASCII only: "$" is the very end here, before no newline.
TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"

Name = Annotated[str, Field(pattern=f"^{NAME}$"), AfterValidator(_check_name)]
Time = Annotated[str, Field(pattern=TIME), AfterValidator(_check_time)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$")]
Range = Annotated[str, Field(pattern=r"^([0-9]{1,9}(\.[0-9]{1,9}){0,3})?$")]
Bytes = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Weight = Annotated[int, Field(ge=1, le=10000)]
Rate = Annotated[int, Field(ge=BLOCK, le=MAX_INTEGER)]
Seconds = Annotated[float, Field(ge=0.1, le=3600)]
# A JSON array becomes a tuple, a JSON string an enum member: the only conversions there are.
Names = Annotated[tuple[Name, ...], *at_most(MAX_SERVICES)]
Words = Annotated[tuple[Word, ...], *at_most(256)]
Arguments = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...], *at_most(64)
]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,255}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
ProbePath = Annotated[str, Field(pattern=r"^(/[!-~]{0,1023})?$")]
