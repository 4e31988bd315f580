"""A helper that was taken over by its medium: what it can still do, and what it could without.

Each attack is a line of Python. It is run in a process that has confined itself, where it must
fail, and in one that has not, where it must succeed: a guard that guards nothing is found out.
"""

import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

HEAD = """
import ctypes, os, signal, socket, subprocess, sys, threading
from extsloader.verify import confinement
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
victim, folder, store = int(sys.argv[2]), sys.argv[3], sys.argv[4]
if sys.argv[1] != "free":
    if sys.argv[1] != "confined":
        setattr(confinement, sys.argv[1], lambda *_: None)
    confinement.confine(store)
"""

ATTACKS = {
    "start a program": "subprocess.run(['/bin/true'], check=True)",
    "kill somebody": "os.kill(victim, signal.SIGUSR1)",
    "queue a signal": "signal.pidfd_send_signal(os.pidfd_open(victim), signal.SIGUSR1)",
    "trace somebody": "call('ptrace', 0x4206, victim, 0, 0)",  # PTRACE_SEIZE
    "read another's memory": "open(f'/proc/{victim}/mem', 'rb').close()",
    "write a file elsewhere": "open(folder + '/x', 'w').close()",
    "change a file elsewhere": "os.truncate(folder + '/there', 0)",
    "delete a file elsewhere": "os.unlink(folder + '/there')",
    "make a directory": "os.mkdir(store + '/x')",
    "make a link out of the store": "os.symlink('/etc', store + '/x')",
    "make a device": "os.mknod(store + '/x', 0o20600, os.makedev(1, 3))",
    "mount": "call('mount', b'extst', store.encode(), b'tmpfs', 0, None); "
    "call('umount2', store.encode(), 0)",
    "talk to the network": "socket.socket()",
    "talk to a local service": "socket.socket(socket.AF_UNIX)",
    "take a namespace": "call('unshare', 0x20000)",
    "open a ring into the kernel": "call('syscall', 425, 1, bytes(120))",  # io_uring_setup
    "change who it is": "os.setuid(65534)",
    "see past permissions": "open(folder + '/secret').close()",
    "raise its limits": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (9, 9))",
    "fill the descriptors": "[os.open('/dev/null', 0) for _ in range(100)]",
    "fill the memory": "bytearray(2 << 30)",
}

LAYERS = {  # what only this one stops
    "limit_resources": "fill the memory",
    "drop_capabilities": "see past permissions",
    "restrict_files": "write a file elsewhere",
    "refuse_calls": "talk to a local service",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "there").write_text("x")
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    (tmp_path / "store").mkdir()
    return tmp_path


def attempt(state: str, attack: str, folder: Path, victim: int) -> subprocess.CompletedProcess[str]:
    store = str(folder / "store")
    argv = [sys.executable, "-c", HEAD + attack, state, str(victim), str(folder), store]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_confined_helper_cannot_what_another_can(attack: str, folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        try:
            confined = attempt("confined", attack, folder, victim.pid)
            assert confined.returncode == 1, confined
            assert "Error" in confined.stderr.splitlines()[-1]
            assert victim.poll() is None
            assert sorted(p.name for p in folder.iterdir()) == ["secret", "store", "there"]
            assert not list((folder / "store").iterdir())
            free = attempt("free", attack, folder, victim.pid)
            assert free.returncode == 0, free
        finally:
            victim.kill()


@pytest.mark.parametrize(("layer", "attack"), LAYERS.items())
def test_each_layer_stops_what_no_other_does(layer: str, attack: str, folder: Path) -> None:
    assert attempt("confined", ATTACKS[attack], folder, 0).returncode == 1
    assert attempt(layer, ATTACKS[attack], folder, 0).returncode == 0


def test_a_confined_helper_has_left_the_network(folder: Path) -> None:
    """No other layer gives it one that is empty; without this one it would have the host's."""
    look = "print(os.readlink('/proc/thread-self/ns/net'))"
    ours = str(Path("/proc/self/ns/net").readlink())
    assert attempt("confined", look, folder, 0).stdout.strip() not in {"", ours}
    assert attempt("leave_namespaces", look, folder, 0).stdout.strip() == ours


def test_it_can_still_do_its_work(folder: Path) -> None:
    work = """
descriptor = os.open(store, os.O_RDWR | os.O_TMPFILE, 0o400)
os.write(descriptor, b'image')
os.link(f'/proc/self/fd/{descriptor}', 'a.img', dst_dir_fd=os.open(store, os.O_RDONLY))
os.rename(store + '/a.img', store + '/b.img')
open(folder + '/there').read()
thread = threading.Thread(target=print, args=('threads',)); thread.start(); thread.join()
"""
    done = attempt("confined", work, folder, 0)
    assert done.stdout == "threads\n", done.stderr
    assert (folder / "store/b.img").read_bytes() == b"image"


def test_it_dies_with_its_parent(folder: Path) -> None:
    """The capabilities are dropped before the request for the signal, which would forget it."""
    parent = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n"
        "child.stdout.read(1); print(child.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    waits = HEAD + "print('x', flush=True); threading.Event().wait()"
    argv = [sys.executable, "-c", waits, "confined", "0", str(folder), str(folder / "store")]
    done = subprocess.run(
        [sys.executable, "-c", parent, *argv], stdout=subprocess.PIPE, timeout=20, check=False
    )
    with suppress(ProcessLookupError):  # it may be gone altogether
        ended = os.pidfd_open(int(done.stdout))
        assert select.select([ended], [], [], 20)[0]
        os.close(ended)
