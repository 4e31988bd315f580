"""The device's own keys: distinct, enough of them, or no image at all."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from extsloader.verify.keys import load_keys
from tests.fakes.images import key_directory


def refusal(directory: str | Path) -> str:
    with pytest.raises(ImageRefusedError) as caught:
        load_keys(str(directory))
    assert caught.value.problem.code is Code.KEYS
    return caught.value.problem.message


def test_one_key_and_no_policy_mean_that_one_has_to_sign(tmp_path: Path) -> None:
    ring = load_keys(key_directory(tmp_path / "keys", 1))
    assert (len(ring.keys), ring.threshold) == (1, 1)


def test_the_policy_asks_for_more(tmp_path: Path) -> None:
    ring = load_keys(key_directory(tmp_path / "keys", 1, 2, 3, threshold=2))
    assert (len(ring.keys), ring.threshold) == (3, 2)


def test_the_same_key_in_two_files_is_one_key(tmp_path: Path) -> None:
    directory = Path(key_directory(tmp_path / "keys", 1, threshold=2))
    (directory / "copy.pem").write_bytes((directory / "1.pem").read_bytes())
    assert "threshold 2 is more than the 1 distinct keys" in refusal(directory)


def test_without_a_key_nothing_is_accepted(tmp_path: Path) -> None:
    assert "there is no *.pem file" in refusal(key_directory(tmp_path / "keys"))
    assert "no such file" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "policy",
    [
        *("", "1", "[]", "{}", '{"threshold":0}', '{"threshold":-1}', '{"threshold":true}'),
        *('{"threshold":1.0}', '{"threshold":"1"}', '{"threshold":1,"threshold":1}'),
        *('{"threshold":1,"epoch":-1}', '{"threshold":1,"epoch":true}', '{"epoch":1}'),
        *('{"threshold":1,"revoked":"1.pem"}', '{"threshold":1,"retired":[1]}'),
        *('{"threshold":1,"revoked_images":["1"]}', '{"threshold":1,"revoked_images":"d"}'),
        *('{"threshold":1,"revoked":["2.pem"]}', '{"threshold":1,"revoked":["1.pem"]}'),
        *('{"threshold":1,"keys":[]}', '{"threshold":2}', '{"threshold":99999999999999999999}'),
    ],
)
def test_a_policy_that_makes_no_sense_is_no_policy_to_go_without(
    tmp_path: Path, policy: str
) -> None:
    directory = Path(key_directory(tmp_path / "keys", 1))
    (directory / "policy.json").write_text(policy)
    assert refusal(directory)


def test_all_mistakes_of_a_policy_are_named_at_once(tmp_path: Path) -> None:
    directory = Path(key_directory(tmp_path / "keys", 1))
    (directory / "policy.json").write_text('{"epoch":-1,"keys":[]}')
    said = refusal(directory)
    assert "'keys' is unknown" in said
    assert "threshold: a number from 1 on expected" in said
    assert "epoch: a number from 0 on expected" in said


def test_a_key_counts_by_the_worst_that_is_said_of_it(tmp_path: Path) -> None:
    directory = Path(key_directory(tmp_path / "keys", 1, 2, 3, retired=(1, 2), revoked=(2,)))
    (directory / "copy.pem").write_bytes((directory / "2.pem").read_bytes())
    ring = load_keys(str(directory))
    assert [len(keys) for keys in (ring.keys, ring.retired, ring.revoked)] == [1, 1, 1]


def test_no_key_is_needed_where_an_image_is_pinned(tmp_path: Path) -> None:
    directory = Path(key_directory(tmp_path / "keys"))
    (directory / "pinned.json").write_text("{}")
    assert load_keys(str(directory)).keys == ()


@pytest.mark.parametrize("bits", [1024, 4096])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, bits: int) -> None:
    directory = Path(key_directory(tmp_path / "keys", 1))
    key = rsa.generate_private_key(65537, bits).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "2.pem").write_bytes(pem)
    assert "no Ed25519 public key" in refusal(directory)


def test_one_unusable_key_file_spoils_the_ring(tmp_path: Path) -> None:
    directory = Path(key_directory(tmp_path / "keys", 1))
    (directory / "2.pem").write_text("junk")
    assert "2.pem" in refusal(directory)


def test_too_many_keys_and_a_directory_for_everybody_are_refused(tmp_path: Path) -> None:
    directory = key_directory(tmp_path / "keys", *range(1, 18))
    assert "at most 16 keys expected, 17 got" in refusal(directory)
    other = key_directory(tmp_path / "open", 1)
    Path(other).chmod(0o702)
    assert "everybody may write there" in refusal(other)


def test_what_a_policy_does_not_say_is_as_without_one(tmp_path: Path) -> None:
    directory = Path(key_directory(tmp_path / "keys", *range(1, 17)))
    assert load_keys(str(directory)).epoch == 0
    (directory / "policy.json").write_text('{"threshold":1' + " " * 16369 + "}")
    ring = load_keys(str(directory))
    assert (len(ring.keys), ring.threshold, ring.epoch) == (16, 1, 0)
    (directory / "policy.json").write_text('{"threshold":1' + " " * 16370 + "}")
    assert "it is not JSON" in refusal(directory)
    (directory / "policy.json").write_text('{"threshold":1,"revoked":""}')
    assert "revoked: a list of file names expected" in refusal(directory)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    directory = Path(key_directory(tmp_path / "keys", 1))
    (directory / "2.pem").mkdir()
    assert refusal(directory) == f"cannot use the keys in {directory}/2.pem: is a directory"
