"""What lies in the way of the agent's start, and whoever starts it in an odd way."""

import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.adapters.lock import take_lock
from extsloader.adapters.oci.processes import identify
from extsloader.adapters.oci.records import Records
from extsloader.adapters.oci.runtime import OciRuntime
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.machine import Machine
from extsloader.model.settings import Paths, Settings
from extsloader.settings.check import check
from extsloader.wiring.ports import open_logs
from tests.fakes import bundles
from tests.fakes.real_agent import RealAgent, StartAgent, agents
from tests.fakes.real_images import BUSYBOX, make_image, service

pytestmark = pytest.mark.hostile


# H170: configuration. Files: tests/unit/settings; a running agent: tests/unit/core/test_reload.py.


@pytest.mark.parametrize(
    ("text", "mode", "owner", "said"),
    [
        pytest.param("lmits.pids = 1", 0o600, 0, "expected a known key", id="h170-unknown-key"),
        pytest.param("udev = true\nudev = false", 0o600, 0, "expected TOML", id="h170-duplicate"),
        pytest.param("udev = 'yes'", 0o600, 0, "a valid boolean", id="h170-wrong-type"),
        pytest.param("udev = true", 0o602, 0, "only root can write", id="h170-world-writable"),
        pytest.param("udev = true", 0o620, 0, "only root can write", id="h170-group-writable"),
        pytest.param("udev = true", 0o600, 1000, "only root can write", id="h170-other-owner"),
        pytest.param(None, 0, 0, "a file that can be read", id="h170-missing"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_bad_configuration_is_refused_and_named(
    tmp_path: Path, text: str | None, mode: int, owner: int, said: str
) -> None:
    config = tmp_path / "extsloader.toml"
    if text is not None:
        config.write_text(text)
        os.chown(config, owner, 1000)
        config.chmod(mode)
    settings, (problem,) = check(f"{config}", "/", {})
    assert settings is None
    assert str(problem).startswith(f"{config}: ")
    assert said in str(problem)


# H173: the lock file.


def _link(path: Path) -> None:
    path.symlink_to("planted")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"{path}")


ODD_LOCKS = [
    pytest.param(_link, "it is a symbolic link", id="h173-link"),
    pytest.param(os.mkfifo, "it is no regular file", id="h173-fifo"),
    pytest.param(Path.mkdir, "is a directory", id="h173-directory"),
    pytest.param(_socket, "no such device or address", id="h173-socket"),
]


@pytest.mark.parametrize(("make", "reason"), ODD_LOCKS)
def test_what_is_no_lock_is_refused_in_words(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "lock")
    with pytest.raises(MachineError, match=f"E_STATE: cannot lock {tmp_path}/lock: {reason}"):
        take_lock(f"{tmp_path}")
    assert not (tmp_path / "planted").exists()


def test_h173_without_guards_a_link_makes_a_file_and_a_fifo_is_a_lock(tmp_path: Path) -> None:
    _link(tmp_path / "lock")
    os.close(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600))
    assert (tmp_path / "planted").exists()
    os.mkfifo(tmp_path / "fifo")
    descriptor = os.open(tmp_path / "fifo", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


# H174 and F63: whoever starts the agent has odd ways.


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def start_agent(
    tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey
) -> Iterator[StartAgent]:
    with agents(tmp_path_factory, key) as start:
        yield start


@pytest.fixture
def agent(start_agent: StartAgent) -> RealAgent:
    """It looks at no device. It was started kindly and stopped; all that it made is away again."""
    agent = start_agent("/dev/extst-none", udev="false")
    agent.stop()
    for name in ("run", "persist"):
        shutil.rmtree(agent.root / name)
    return agent


def _close_standard() -> None:
    os.closerange(0, 3)


def _leak_descriptors() -> None:
    """Three to a hundred, one of them a directory of the machine."""
    directory = os.open("/", os.O_RDONLY)
    for number in range(3, 101):
        os.dup2(directory, number)


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _ignore_signals() -> None:
    for number in signal.valid_signals():
        with suppress(OSError, ValueError):  # SIGKILL and SIGSTOP
            signal.signal(number, signal.SIG_IGN)


def _mask_nothing() -> None:
    os.umask(0)


def _mask_all() -> None:
    os.umask(0o777)


def _lose_directory() -> None:
    os.chdir(tempfile.mkdtemp(prefix="extst-"))
    Path.cwd().rmdir()


def _allow_no_growth() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _nothing() -> None:
    pass


HUP_AND_INT = 1 << signal.SIGHUP - 1 | 1 << signal.SIGINT - 1
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UMLAUT = {"EXTSLOADER_PATHS__WATCH": "/nowhere/für"}
SYSTEMD = {"WATCHDOG_USEC": "9" * 5000, "LISTEN_FDS": "1000000000", "JOURNAL_STREAM": "x:y"}


@pytest.mark.root
@pytest.mark.parametrize(
    ("before", "environ"),
    [
        pytest.param(_close_standard, {}, id="h174-closed-0-to-2"),
        pytest.param(_leak_descriptors, {}, id="h174-inherited-descriptors"),
        pytest.param(_block_signals, {}, id="h174-blocked-signals"),
        pytest.param(_ignore_signals, {}, id="h174-ignored-signals"),
        pytest.param(_mask_nothing, {}, id="h174-umask-0"),
        pytest.param(_mask_all, {}, id="h174-umask-777"),
        pytest.param(_lose_directory, {}, id="h174-deleted-directory"),
        pytest.param(_nothing, SYSTEMD, id="h174-junk-of-systemd"),
        pytest.param(_nothing, {"TZ": ":../../etc/passwd\x01"}, id="h174-junk-time-zone"),
        pytest.param(_nothing, C_LOCALE | UMLAUT, id="h174-f63-c-locale"),
    ],
)
def test_an_odd_start_is_a_start_like_any_other(
    agent: RealAgent, before: Callable[[], None], environ: dict[str, str]
) -> None:
    agent.before = before
    agent.environ |= environ
    agent.start()
    assert agent.status().state == "searching"
    made = [agent.run.parent, agent.store.parent, agent.store.parent / "history"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o755, 0o755, 0o600]
    assert agent.stop() == 0


@pytest.mark.root
def test_h174_a_limit_that_allows_no_file_is_told(agent: RealAgent) -> None:
    agent.before = _allow_no_growth
    agent.start()
    status = agent.until(lambda status: status.problems)
    assert "history" in status.problems[0].message
    assert status.problems[0].message.endswith("file too large")
    assert agent.stop() == 1


@pytest.mark.root
def test_h174_services_inherit_none_of_it(agent: RealAgent, key: Ed25519PrivateKey) -> None:
    """SIGCHLD that is ignored would cost each of our children its exit code."""

    def everything() -> None:
        for prepare in (_lose_directory, _mask_all, _ignore_signals, _block_signals):
            prepare()
        _leak_descriptors()
        _close_standard()

    (agent.root / "persist").mkdir()
    up = {"kind": "file", "path": "/up"}
    base = service("base", "touch /up; exec sleep 1000", readiness=up)
    make_image(agent.root / "persist/ext-imga.img", key, base)
    agent.before = everything
    agent.start()
    agent.until_ready()
    pid = agent.service("base").pid
    fields = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    # runc's Go hands these two on as it found them (os/signal), a shell sets others itself.
    ignored = int(fields["SigIgn"], 16) & HUP_AND_INT
    assert (int(fields["SigBlk"], 16), ignored, fields["Umask"]) == (0, 0, "0022")
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == 3
    assert agent.stop() == 0


def test_h174_a_relative_root_below_nothing_is_refused_in_words() -> None:
    code = (
        "import os, tempfile; from extsloader.settings.check import check;"
        "os.chdir(tempfile.mkdtemp(prefix='extst-')); os.rmdir(os.getcwd());"
        "print(*check(None, 'demo', {})[1])"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "give an absolute path" in said


# H175: a record of an earlier boot.


@pytest.fixture
def foreign() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.root
@pytest.mark.parametrize(
    ("boot", "survives"),
    [
        pytest.param("an earlier boot", True, id="h175-earlier-boot"),
        pytest.param(None, False, id="h175-unguarded"),
    ],
)
async def test_a_process_that_only_has_the_number_is_not_killed(
    tmp_path: Path, foreign: subprocess.Popen[bytes], boot: str | None, survives: bool
) -> None:
    """Even one that began at the same tick; of this boot it is taken for ours, as it would be."""
    zeta = ServiceName("zeta")
    settings = Settings(paths=Paths(run=f"{tmp_path}"))
    runtime = OciRuntime(settings, Machine(arch="amd64"), open_logs(settings))
    records = Records(tmp_path / "containers")
    records._boot = boot or records._boot
    directory = records.make(bundles.good())
    known = identify(foreign.pid)
    assert known
    records.save(directory, Digest("ab" * 32), known, known)
    assert await runtime.leftovers(Digest("")) == (zeta,)
    await runtime.delete(zeta)
    assert (foreign.poll() is None) == survives
    assert not directory.exists()
