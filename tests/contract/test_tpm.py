"""A TPM in software, spoken to by the programs that speak to a real one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from signal import SIGKILL

import pytest

from extsloader.adapters import tpm
from extsloader.adapters.tpm import INDEX, LOG, TpmIndex, TpmRegister, find_no_tpm
from extsloader.core import event_log
from extsloader.core.event_log import START
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest
from extsloader.runtime.measure_work import measure

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


A, B = Digest("a" * 64), Digest("b" * 64)


def register(tcti: str, log: Path) -> TpmRegister:
    return TpmRegister(boot="this", log=log, tcti=tcti)


LIFE = """
import sys
from pathlib import Path
from extsloader.adapters import tpm
from extsloader.runtime.measure_work import measure
programs, tcti, log, image = sys.argv[1:]
tpm.PROGRAMS = programs
measure(tpm.TpmRegister(boot="this", log=Path(log), tcti=tcti), image)
"""


def test_the_register_replays_from_the_log_that_lies_beside_it(tcti: str, tmp_path: Path) -> None:
    found = register(tcti, tmp_path)
    assert found.read() == START
    for image in (A, B, A):
        measure(found, image)
    records = json.loads((tmp_path / LOG).read_text())
    value = START
    for record in records:
        value = sha256(value + bytes.fromhex(record["digests"][0]["digest"])).digest()
    assert len(records) == 2
    assert found.read() == value == event_log.replay(event_log.decode(found.read_log(), "this"))


KILLING = """#!/bin/sh
{before}
/usr/bin/tpm2_pcrextend "$@"
kill -9 $PPID
"""


@pytest.mark.parametrize("before", ["", "kill -9 $PPID; exit"], ids=["extended", "not extended"])
def test_killed_between_extending_and_remembering_it_is_extended_once(
    tcti: str, tmp_path: Path, before: str
) -> None:
    """A process of its own is killed by the program that it has called to extend."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "tpm2_pcrread").symlink_to("/usr/bin/tpm2_pcrread")
    program = programs / "tpm2_pcrextend"
    program.write_text(KILLING.format(before=before))
    program.chmod(0o755)
    killed = subprocess.run([sys.executable, "-c", LIFE, programs, tcti, tmp_path, A], check=False)
    assert killed.returncode == -SIGKILL
    found = register(tcti, tmp_path)
    (event,) = event_log.decode(found.read_log(), "this")
    assert not event.sure
    assert (found.read() == START) is bool(before)
    for _ in range(2):
        measure(found, A)
    assert found.read() == event_log.extend(START, A)
    assert event_log.decode(found.read_log(), "this")[0].sure


def test_a_tpm_that_fails_is_told_and_counts_as_not_measured(tmp_path: Path) -> None:
    found = register(f"swtpm:path={tmp_path}/nothing", tmp_path)
    with pytest.raises(MachineError, match="E_STATE: cannot run tpm2_pcrread: "):
        measure(found, A)
    assert not found.read_log()


def test_a_bank_that_is_switched_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tpm2_pcrread"
    program.write_text("#!/bin/sh\necho '  sha256:'\n")
    program.chmod(0o755)
    monkeypatch.setattr(tpm, "PROGRAMS", str(tmp_path))
    with pytest.raises(MachineError, match="cannot run tpm2_pcrread: no sha256 bank got"):
        register("", tmp_path).read()


def test_a_place_that_cannot_hold_the_log_stops_the_measurement(tcti: str, tmp_path: Path) -> None:
    found = register(tcti, tmp_path / "nowhere")
    with pytest.raises(MachineError, match="cannot use the event log of the TPM: no such file"):
        measure(found, A)
    assert found.read() == START
    (tmp_path / LOG).mkdir()
    with pytest.raises(MachineError, match="cannot use the event log of the TPM: is a directory"):
        measure(register(tcti, tmp_path), A)
