"""What `extsloaderctl top` makes of two looks."""

from extsloader.ctl.text import Style
from extsloader.ctl.top import compare, show_usage
from extsloader.model.ids import ServiceName
from extsloader.model.status import ServiceLimits, ServiceStatus, Usage

MIB = 1 << 20


def service(name: str, cpu: float | None, *, pid: int = 1, memory: int = MIB) -> ServiceStatus:
    usage = Usage(memory=memory, cpu_seconds=cpu, pids=3, oom_kills=0)
    limits = ServiceLimits(memory=128 * MIB, swap=0, cpu_weight=100, cpu_quota=None, pids=64)
    return ServiceStatus(name=ServiceName(name), state="ready", pid=pid, usage=usage, limits=limits)


def test_the_busiest_is_on_top_and_then_the_largest() -> None:
    before = [service("a", 1.0), service("b", 1.0, memory=2 * MIB), service("c", 5.0)]
    after = [service("a", 1.0), service("b", 1.0, memory=2 * MIB), service("c", 6.0)]
    assert [(s.name, share) for s, share in compare(before, after, 2.0)] == [
        ("c", 50.0),
        ("b", 0.0),
        ("a", 0.0),
    ]


def test_two_runs_are_not_compared_nor_what_the_kernel_does_not_say() -> None:
    before = [service("a", 9.0), service("b", None)]
    after = [service("a", 9.5, pid=2), service("b", None), service("new", 1.0)]
    assert [share for _, share in compare(before, after, 1.0)] == [None, None, None]


def test_the_table() -> None:
    gone = ServiceStatus(name=ServiceName("gone"), state="parked")
    lines = show_usage(compare([service("a", 1.0)], [service("a", 1.1), gone], 1.0), Style())
    assert lines == [
        "SERVICE  STATE   CPU %  MEMORY  LIMIT  PIDS  LIMIT  OOM KILLS",
        "a        ready    10.0      1M   128M     3     64          0",
        "gone     parked      -       -      -     -      -          -",
    ]
