"""The manifest's schema: what the signed bytes must look like before anybody acts on them.

The daemon never loads this module; it gets the plain dataclasses of `extsloader.model.manifest`,
which `tests/unit/image/test_schema.py` holds equal to the models here. Unknown members are refused
(a device must not ignore what the signer meant), except those whose name begins with "x-".
"""

import json
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import ErrorDetails, core_schema

from extsloader.image.fields import (
    TIME,
    Arguments,
    Bytes,
    Host,
    Name,
    Names,
    Port,
    ProbePath,
    Range,
    Rate,
    Seconds,
    Sha256,
    Time,
    Weight,
    Word,
    Words,
    at_most,
)
from extsloader.image.relations import (
    MAX_SERVICES,
    Finding,
    find_relation_problems,
    is_named,
)
from extsloader.image.strictjson import MAX_INTEGER, parse_object, shown
from extsloader.image.verity import BLOCK, image_size
from extsloader.model import manifest as model
from extsloader.model.errors import ImageRefusedError
from extsloader.model.manifest import parse_time
from extsloader.model.reasons import Code

SCHEMA = 1
_SHOWN = 10  # problems in one sentence


class _Strict(BaseModel):
    # No Literal for numbers: to Python, and so to pydantic, True and 1.0 are 1.
    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )


class Verity(_Strict):
    """The dm-verity tree."""

    algorithm: Literal["sha256"]
    root_hash: Sha256
    salt: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){0,256}$")]
    block_size: Annotated[int, Field(ge=BLOCK, le=BLOCK)]
    data_blocks: Annotated[int, Field(ge=1, le=MAX_INTEGER // BLOCK)]
    hash_offset: Annotated[int, Field(ge=BLOCK, le=MAX_INTEGER, multiple_of=BLOCK)]


class ImageSpec(_Strict):
    """The bytes before the trailer."""

    size: Annotated[int, Field(ge=2 * BLOCK, le=MAX_INTEGER, multiple_of=BLOCK)]
    digest: Sha256
    format: Literal["squashfs"]
    verity: Verity

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        """Numbers that contradict each other would let the kernel see other bytes than we hash."""
        blocks = self.verity.data_blocks
        if self.verity.hash_offset != blocks * BLOCK:
            raise ValueError(
                f"verity.hash_offset should be {blocks * BLOCK}, after data_blocks blocks"
            )
        if self.size != image_size(blocks):
            raise ValueError(f"size should be {image_size(blocks)}, data and hash tree")
        return self


class Compatible(_Strict):
    """Which devices the image is meant for."""

    arch: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,16}$")]
    hypervisors: Annotated[tuple[Name, ...], *at_most(16, least=1)]
    core_min: Range = ""
    core_max: Range = ""
    device_ids: Words = ()


class Readiness(_Strict):
    """When a started service counts as ready."""

    kind: Annotated[model.ProbeKind, Field(strict=False)] = model.ProbeKind.DELAY
    command: Arguments = ()
    host: Host = "127.0.0.1"
    port: Port = 0
    path: ProbePath = ""
    seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    timeout: Seconds = 30.0

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        _check_probe(self)
        return self


class Health(_Strict):
    """A probe that a ready service has to pass again and again."""

    kind: Annotated[model.ProbeKind, Field(strict=False)]
    command: Arguments = ()
    host: Host = "127.0.0.1"
    port: Port = 0
    path: ProbePath = ""
    interval: Seconds = 10.0
    timeout: Annotated[float, Field(ge=0.1, le=60)] = 2.0
    failures: Annotated[int, Field(ge=1, le=1000)] = 3
    action: Annotated[model.HealthAction, Field(strict=False)] = model.HealthAction.RESTART

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind not in model.PROBES:
            raise ValueError(f"kind should be {', '.join(model.PROBES)}, got {self.kind}")
        _check_probe(self)
        return self


class Conditions(_Strict):
    """What the device must be like for a service to run."""

    paths: Annotated[
        tuple[Annotated[str, Field(pattern=r"^/[!-~]{1,1023}$")], ...], *at_most(16)
    ] = ()
    hypervisors: Annotated[tuple[Name, ...], *at_most(16)] = ()
    command_line: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[!-~]{1,256}$")], ...], *at_most(16)
    ] = ()


def _check_probe(probe: Readiness | Health) -> None:
    missing = [name for name in model.PROBES.get(probe.kind, ()) if not getattr(probe, name)]
    if missing:
        raise ValueError(f"of kind {probe.kind} needs {' and '.join(missing)}")


class Restart(_Strict):
    """What happens after the service's end."""

    policy: Annotated[model.RestartPolicy, Field(strict=False)] = model.RestartPolicy.ALWAYS
    base: Seconds = 1.0
    cap: Seconds = 300.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 1.0
    limit: Annotated[int, Field(ge=0, le=1000)] = 10
    reset_after: Annotated[float, Field(ge=1, le=86400)] = 60.0

    @model_validator(mode="after")
    def _check_cap(self) -> Self:
        if self.cap < self.base:
            raise ValueError(f"cap should be at least base ({self.base}), got {self.cap}")
        return self


class Stop(_Strict):
    """How to end the service politely."""

    signal: Literal[
        "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL"
    ] = "SIGTERM"
    grace: Seconds = 10.0


class Resources(_Strict):
    """Limits of one service."""

    memory: Annotated[int, Field(ge=1 << 20, le=MAX_INTEGER)] | None = None
    swap: Bytes = 0
    cpu_weight: Weight = 100
    cpu_quota: Annotated[float, Field(ge=0.01, le=1024)] | None = None
    pids: Annotated[int, Field(ge=2, le=4194304)] | None = None
    io_weight: Weight | None = None
    io_read_bps: Rate | None = None
    io_write_bps: Rate | None = None
    oom_score_adj: Annotated[int, Field(ge=-1000, le=1000)] = 0
    nice: Annotated[int, Field(ge=-20, le=19)] = 0


class Service(_Strict):
    """One service of the image."""

    name: Name
    bundle: Annotated[str, Field(pattern=r"^containers/services/[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    requires: Names = ()
    wants: Names = ()
    after: Names = ()
    conflicts: Names = ()
    conditions: Conditions = Conditions()
    stage: Annotated[int, Field(ge=0, le=99)] = 0
    essential: bool = False
    resources: Resources = Resources()
    restart: Restart = Restart()
    readiness: Readiness = Readiness()
    health: Health | None = None
    stop: Stop = Stop()
    profile: Annotated[model.Profile, Field(strict=False)] | None = None


class Manifest(_Strict):
    """The signed truth about one pkgs image."""

    schema_: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)]
    name: Word
    version: Word
    sequence: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    issued_at: Time
    expires: Annotated[str, Field(pattern=f"^({TIME[1:-1]})?$")] = ""
    image: ImageSpec
    compatible: Compatible
    services: Annotated[tuple[Service, ...], *at_most(MAX_SERVICES, least=1)]

    @field_validator("expires")
    @classmethod
    def _check_order(cls, expires: str, info: ValidationInfo) -> str:
        issued = info.data.get("issued_at", "")
        if expires and parse_time(expires) <= (parse_time(issued) if issued else 0):
            raise ValueError(f"should be later than issued_at ({issued or 'missing'})")
        return expires


def parse_manifest(payload: bytes) -> model.Manifest:
    """Read the signed bytes. Raises ImageRefusedError that names all problems, ten in full."""
    try:
        found = parse_object(payload)
    except ValueError as error:
        raise ImageRefusedError(
            Code.SCHEMA, f"cannot accept the manifest: {error}", "build the image anew"
        ) from None
    problems = find_problems(found)
    if problems:
        raise refusal(problems)
    checked = Manifest.model_validate(found).model_dump(mode="json", by_alias=True)
    return msgspec.convert(checked, model.Manifest)


def find_problems(found: dict[str, Any]) -> list[Finding]:
    """Everything that is wrong with a parsed manifest; empty when nothing is."""
    if type(found.get("schema")) is int and found["schema"] > SCHEMA:
        sentence = f"schema {SCHEMA} is supported, {found['schema']} got: a newer core is needed"
        return [(Code.SCHEMA, sentence)]
    problems: list[Finding] = []
    try:
        Manifest.model_validate(found)
    except ValidationError as error:
        problems = [_finding(found, detail) for detail in error.errors() if not _is_echo(detail)]
    return problems + list(find_relation_problems(found))


def refusal(problems: list[Finding]) -> ImageRefusedError:
    """One error for all problems; their common code, E_SCHEMA when there are several."""
    codes = {code for code, _ in problems}
    sentences = [sentence for _, sentence in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        sentences.append(f"and {len(problems) - _SHOWN} more")
    return ImageRefusedError(
        codes.pop() if len(codes) == 1 else Code.SCHEMA,
        f"cannot accept the manifest: {'; '.join(sentences)}",
        "correct the manifest, build and sign the image anew",
    )


def encode_manifest(manifest: model.Manifest) -> bytes:
    """The bytes to sign: the same manifest always gives the same bytes; `None` is left out."""
    found = _without_none(msgspec.to_builtins(manifest))
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) for authors and their editors."""
    found = Manifest.model_json_schema(schema_generator=_WithoutNull)
    return {"$schema": GenerateJsonSchema.schema_dialect, **_without_none(found)}


class _WithoutNull(GenerateJsonSchema):
    """A member without a value is left out, never null, so null is no part of the schema."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list | tuple) else value


def _is_echo(detail: ErrorDetails) -> bool:
    """An array with bad items only counts as too short, but its items have been named already."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _finding(found: dict[str, Any], detail: ErrorDetails) -> Finding:
    """Put one of pydantic's errors into our words, with the service's name for its number."""
    path = [part for part in detail["loc"] if not str(part).startswith(("literal", "function"))]
    name = path[-1] if path else ""
    code = _CODES.get(detail["type"], Code.PATH if name == "bundle" else Code.SCHEMA)
    return code, f"{_place(found, path)} {_reason(detail)}"


_CODES = {"too_long": Code.LIMIT, "string_too_long": Code.LIMIT}


def _reason(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is unknown"
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
        case _:
            return _wrong_value(detail)


def _wrong_value(detail: ErrorDetails) -> str:
    """Shorten "Input should be …, got …" to what follows a member's name."""
    sentence = detail["msg"].partition(" ")[2].partition(", got")[0]
    value = detail["input"]
    if isinstance(value, dict | list | tuple):
        return f"{sentence}, got {'an object' if isinstance(value, dict) else 'an array'}"
    return f"{sentence}, got {shown(str(value))}"


def _place(found: dict[str, Any], path: list[int | str]) -> str:
    """`services[3].stop.grace` as "service mosquitto: stop.grace" where the name can be shown."""
    match path:
        case ["services", int(number), *rest] if is_named(found["services"][number]):
            dotted = _dotted(rest)
            return f"service {found['services'][number]['name']}: {dotted}".rstrip()
    return _dotted(path) or "it"


def _dotted(path: list[int | str]) -> str:
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{_plain(p)}" for p in path)
    return text.removeprefix(".")


def _plain(member: str) -> str:
    return member if member.isascii() and member.isidentifier() else shown(member)
