"""A TPM in software, spoken to by the programs that speak to a real one."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from extsloader.adapters import tpm
from extsloader.adapters.tpm import INDEX, TpmIndex, find_no_tpm
from extsloader.model.errors import MachineError

pytestmark = pytest.mark.root


@pytest.fixture
def tcti(tmp_path: Path) -> Iterator[str]:
    """A new TPM, powered on; it writes one line when it listens."""
    socket = tmp_path / "tpm"
    command = [
        "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={tmp_path}",
        "--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={socket}.ctrl",
        "--flags", "not-need-init,startup-clear",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not socket.exists():
            assert process.poll() is None, "swtpm does not start"
        yield f"swtpm:path={socket}"
        process.kill()


def index(tcti: str) -> TpmIndex[bytes]:
    return TpmIndex(decode=bytes, tcti=tcti)


def run(tcti: str, program: str, *arguments: str, data: bytes = b"") -> None:
    env = {"PATH": "/usr/bin", "TPM2TOOLS_TCTI": tcti}
    subprocess.run([program, *arguments], check=True, env=env, input=data, capture_output=True)


def test_a_new_tpm_holds_nothing_and_what_is_written_stays(tcti: str) -> None:
    found = index(tcti)
    assert found.read().value is None
    assert not found.read().problems
    for payload in (b'{"a": 1}', b'{"a": "much longer"}', b"{}"):
        found.write(payload)
        assert found.read().value == payload


def test_what_is_too_long_is_refused_and_what_was_there_stays(tcti: str) -> None:
    found = index(tcti)
    found.write(b"{}")
    with pytest.raises(MachineError, match="cannot write to the TPM: 1032 bytes are needed, 768"):
        found.write(b"x" * 1000)
    assert found.read().value == b"{}"


def test_what_is_not_ours_does_not_count_and_is_written_over(tcti: str) -> None:
    found = index(tcti)
    found.write(b"{}")
    run(tcti, "tpm2_nvwrite", INDEX, "-C", "o", "-i", "-", data=b"x" * 100)
    loaded = found.read()
    assert loaded.lost
    assert "its checksum is wrong" in loaded.problems[0].message
    found.write(b"{}")
    assert found.read().value == b"{}"


def test_an_owner_password_is_told(tcti: str) -> None:
    found = index(tcti)
    run(tcti, "tpm2_changeauth", "-c", "owner", "secret")
    with pytest.raises(
        MachineError, match=r"E_STATE: cannot run tpm2_nvdefine: Esys.* - tpm:.*authorization"
    ):
        found.write(b"{}")


def test_a_tpm_that_does_not_answer_is_told_and_ends_in_time(tmp_path: Path) -> None:
    loaded = index(f"swtpm:path={tmp_path}/nothing").read()
    assert loaded.value is None
    assert "cannot use what the TPM remembers: cannot run tpm2_getcap" in loaded.problems[0].message


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tpm2_getcap"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(tpm, "PROGRAMS", str(tmp_path))
    loaded = TpmIndex(decode=bytes, tcti="", deadline=0.1).read()
    assert "no answer within 0.1 s" in loaded.problems[0].message


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert find_no_tpm("/dev/null", "/usr/bin") == ""
    assert find_no_tpm(f"{tmp_path}/tpmrm0") == f"there is no {tmp_path}/tpmrm0"
    assert "Debian package tpm2-tools" in find_no_tpm("/dev/null", str(tmp_path))
    with pytest.raises(MachineError, match="cannot run tpm2_nope: no such file or directory"):
        TpmIndex(decode=bytes)._run("tpm2_nope")
