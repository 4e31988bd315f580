"""Signed numbers at and behind their ends, and times that no clock shows."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from extsloader.image.trailer import encode_trailer
from extsloader.image.verity import BLOCK, image_size, round_up
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.ids import Digest
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code
from extsloader.model.trust import Release
from extsloader.verify.medium import open_medium
from extsloader.verify.offline import verify_file
from extsloader.verify.pipeline import check_size, find_envelope
from tests.fakes import images
from tests.hostile.judge import GOOD, NOW, PAYLOAD, judge, manifest, refusal, sealed

pytestmark = pytest.mark.hostile

SIZES = [0, -1, 4095, 2**31 - 1, 2**31 + 1, 2**32 - 1, 2**32 + 1, 2**53, 2**63, 2**64]


@pytest.mark.parametrize("size", SIZES)
def test_h049_sizes_that_no_image_has(asked: Request, size: int) -> None:
    assert judge(manifest(image__size=size), asked) is Code.SCHEMA
    assert judge(manifest(image__verity__data_blocks=size), asked) is Code.SCHEMA
    assert judge(manifest(image__verity__hash_offset=size), asked) is Code.SCHEMA


@pytest.mark.parametrize("used", [2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1])
def test_h049_the_trailer_behind_a_large_image_is_found(tmp_path: Path, used: int) -> None:
    blocks = round_up(used) // BLOCK
    end = image_size(blocks)
    head = bytearray(images.squashfs(100)[:96])
    head[40:48] = used.to_bytes(8, "little")
    path = tmp_path / "image"
    with path.open("wb") as file:  # sparse: all but head and trailer is a hole
        file.write(head)
        file.seek(end)
        file.write(encode_trailer(end, b"{}"))
    with open_medium(images.file_source(path)) as medium:
        assert find_envelope(medium, "/nowhere") == b"{}"


def test_h050_what_lies_behind_the_image_plays_no_part(tmp_path: Path, asked: Request) -> None:
    path = tmp_path / "image"
    good = images.signed(path, size=100)
    path.write_bytes(path.read_bytes() + b"\xff" * 100_000)
    found = verify_file(str(path), asked.keys)
    assert isinstance(found, StoredImage)
    assert found.manifest == good


def test_h050_a_signature_over_the_first_part_of_a_file_system(
    tmp_path: Path, asked: Request
) -> None:
    path = tmp_path / "image"
    image = images.unsigned(path, 100_000)
    content = path.read_bytes()
    size = image_size(1)
    verity = replace(image.verity, data_blocks=1, hash_offset=BLOCK)
    digest = Digest(sha256(content[:size]).hexdigest())
    part = replace(image, size=size, digest=digest, verity=verity)
    path.write_bytes(content + encode_trailer(image.size, images.envelope(images.manifest(part))))
    found = verify_file(str(path), asked.keys)
    assert not isinstance(found, StoredImage)
    assert found.code is Code.SIZE


def test_h051_a_signed_size_larger_than_the_medium() -> None:
    check_size(GOOD.image, GOOD.image.size)
    with pytest.raises(ImageRefusedError) as caught:
        check_size(GOOD.image, GOOD.image.size - 1)
    assert caught.value.problem.code is Code.SIZE


@pytest.mark.parametrize(
    "digest",
    [
        *("", "A" * 64, "a" * 63, "a" * 65, " " + "a" * 63, "a" * 63 + " ", "a" * 64 + "\n"),
        *("sha256:" + "a" * 64, "sha256:sha256:" + "a" * 64, "a" * 40, "md5:" + "a" * 32, "g" * 64),
        *("\uff41" * 64, "0x" + "a" * 62),
    ],
)
def test_h052_digests_that_are_none(asked: Request, digest: str) -> None:
    assert judge(manifest(image__digest=digest), asked) is Code.SCHEMA
    assert judge(manifest(image__verity__root_hash=digest), asked) is Code.SCHEMA


@pytest.mark.parametrize("sequence", [0, -1, 2**53, 2**63 - 1, "1.10", "1", 1.0])
def test_h053_sequences_that_are_none(asked: Request, sequence: object) -> None:
    assert judge(manifest(sequence=sequence), asked) is Code.SCHEMA


def test_h053_leading_zeros_and_jumps(asked: Request) -> None:
    assert judge(PAYLOAD.replace(b'"sequence":1', b'"sequence":007'), asked) is Code.SCHEMA
    assert judge(manifest(sequence=2**53 - 1), asked) is None
    at_floor = replace(asked, floors=(Release(name="pkgs", sequence=1),))
    assert judge(manifest(sequence=2**20 + 1), at_floor) is None
    assert judge(manifest(sequence=2**20 + 2), at_floor) is Code.ROLLBACK


@pytest.mark.parametrize(
    ("sequence", "digest", "code"),
    [
        pytest.param(6, "a", Code.ROLLBACK, id="h054 below"),
        pytest.param(7, "a", None, id="h054 the same"),
        pytest.param(8, "b", None, id="h054 above"),
        pytest.param(7, "b", Code.EQUIVOCATION, id="h055 another one"),
    ],
)
def test_sequences_around_the_floor(
    asked: Request, sequence: int, digest: str, code: Code | None
) -> None:
    known = Release(name="pkgs", sequence=7, digest="a" * 64)
    found = manifest(sequence=sequence, image__digest=digest * 64)
    assert judge(found, replace(asked, floors=(known,))) is code
    accepted = replace(asked, accepted=(known,))
    assert judge(found, accepted) is (None if code is Code.ROLLBACK else code)


@pytest.mark.parametrize(
    ("expires", "code"),
    [
        ("2026-01-02T00:00:00Z", Code.EXPIRED),
        ("2038-01-19T03:14:07Z", None),
        ("2038-01-19T03:14:08Z", None),
        ("9999-12-31T23:59:59Z", None),
        *(
            (text, Code.SCHEMA)
            for text in (
                *("1969-12-31T23:59:59Z", "2030-06-30T23:59:60Z", "2030-01-01T00:00:00"),
                *("2030-01-01T00:00:00+99:99", "2030-01-01T00:00:00+00:00", "2030-01-01"),
                *("2030-01-01T00:00:00z", "2030-01-01T24:00:00Z", "2030-02-29T00:00:00Z"),
                *("0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2030-01-01 00:00:00Z"),
                *("2030-01-01T00:00:00Z\n", "2030-01-01T00:00:00.5Z", "never", "\u0662030"),
            )
        ),
    ],
)
def test_h056_expiry(asked: Request, expires: str, code: Code | None) -> None:
    assert judge(manifest(expires=expires), asked) is code


def test_h057_issued_in_the_future(asked: Request) -> None:
    def late(asked: Request, wall: float) -> Code | None:
        return judge(manifest(issued_at="2026-06-01T00:00:00Z"), replace(asked, wall=wall))

    issued = 1_780_272_000.0
    assert late(asked, issued - 86400) is None
    assert late(asked, issued - 86401) is Code.CLOCK
    assert late(replace(asked, clock_floor=issued - 86400), issued - 90000) is None


@pytest.mark.parametrize("expires", ["2026-01-01T00:00:00Z", "2025-12-31T23:59:59Z"])
def test_h058_issued_after_it_expires(asked: Request, expires: str) -> None:
    assert judge(manifest(issued_at="2026-01-01T00:00:00Z", expires=expires), asked) is Code.SCHEMA


def test_h059_a_clock_at_1970(asked: Request) -> None:
    unsure = replace(asked, wall=0.0, clock_floor=NOW)
    assert judge(manifest(expires="2030-01-01T00:00:00Z"), unsure) is None


NUMBERS = [" 1_000 ", "1_000", "１２", "٣", "0x10", "+5", "5 ", "5", "1e3", ""]  # noqa: RUF001


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("member", ["memory", "pids", "cpu_weight", "cpu_quota", "swap"])
def test_h060_numbers_as_texts(asked: Request, number: str, member: str) -> None:
    assert judge(manifest(**{f"services__0__resources__{member}": number}), asked) is Code.SCHEMA


RANGES: list[tuple[str, str, tuple[object, ...], tuple[object, ...]]] = [
    ("h061", "resources__memory", (0, 1, -1, (1 << 20) - 1), (1 << 20, 1 << 50)),
    ("h061", "resources__swap", (-1,), (0, 1 << 50)),
    ("h062", "resources__pids", (0, 1, -1, 4194305), (2, 4194304)),
    ("h062", "resources__cpu_quota", (0, 0.009, -1, 1e9), (0.01, 1024)),
    ("h062", "resources__cpu_weight", (0, -1, 10001), (1, 10000)),
    ("h062", "resources__io_weight", (0, -1, 10001), (1, 10000)),
    ("h062", "resources__io_read_bps", (0, 1, 4095), (4096,)),
    ("h062", "resources__oom_score_adj", (-1001, 1001), (-1000, 1000)),
    ("h062", "resources__nice", (-21, 20), (-20, 19)),
    ("h063", "stop__grace", (0, 0.09, -1, 3601, 1e9), (0.1, 3600)),
    ("h063", "readiness__timeout", (0, 0.09, -1, 3601, 1e9), (0.1, 3600)),
    ("h063", "readiness__seconds", (-1, 3601, 1e9), (0, 3600)),
    ("h064", "restart__base", (0, -1, 3601), (0.1, 300)),
    ("h064", "restart__cap", (0, 0.5, -1, 3601), (1.0, 3600)),
    ("h064", "restart__jitter", (-0.1, 1.1), (0, 1)),
    ("h064", "restart__limit", (-1, 1001), (0, 1000)),
    ("h064", "restart__reset_after", (0, -1, 86401), (1, 86400)),
]


@pytest.mark.parametrize(
    ("member", "bad", "good"), [row[1:] for row in RANGES], ids=[f"{r[0]} {r[1]}" for r in RANGES]
)
def test_ranges(
    asked: Request,
    member: str,
    bad: tuple[object, ...],
    good: tuple[object, ...],
    record_property: Callable[[str, object], None],
) -> None:
    for value in bad:
        code, message = refusal(sealed(manifest(**{f"services__1__{member}": value})), asked)
        assert code is Code.SCHEMA
        assert all(word in message for word in ("service b: ", *member.split("__")))
    for value in good:
        assert judge(manifest(**{f"services__1__{member}": value}), asked) is None
    record_property("cases", len(bad) + len(good))
