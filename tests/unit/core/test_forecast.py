"""What `extsloaderctl plan` foretells."""

import pytest
from hypothesis import given

from extsloader.core import forecast, graph
from extsloader.model.manifest import Conditions, ProbeKind, Readiness, Service
from tests.fakes import builders, drawn

SLOW = Readiness(kind=ProbeKind.HTTP, port=80, path="/", timeout=20.0)
DELAYED = Readiness(kind=ProbeKind.DELAY, seconds=3.0)


def test_the_critical_path_is_the_longest_wait_and_not_the_longest_chain() -> None:
    services = (
        builders.service("web", requires=["broker"]),
        builders.service("broker", readiness=SLOW),
        builders.service("a", readiness=DELAYED),
        builders.service("b", after=["a"], readiness=DELAYED),
        builders.service("c", wants=["b"]),
    )
    starts = forecast.foretell(services)
    assert [(s.name, s.step, s.seconds) for s in starts] == [
        ("a", 1, 3.0),
        ("broker", 1, 20.0),
        ("b", 2, 6.0),
        ("web", 2, 20.0),
        ("c", 3, 6.0),
    ]
    assert forecast.find_critical_path(starts) == ("broker", "web")


def test_a_later_stage_waits_for_the_slowest_of_all_earlier_ones() -> None:
    services = (
        builders.service("a", stage=7),
        builders.service("b", readiness=SLOW),
        builders.service("c", stage=5),
    )
    starts = forecast.foretell(services)
    assert [(s.name, s.step) for s in starts] == [("b", 1), ("c", 2), ("a", 3)]
    assert forecast.find_critical_path(starts) == ("b", "c", "a")


def test_what_may_keep_a_service_back_is_said() -> None:
    conditions = Conditions(paths=("/dev/tpm0",), hypervisors=("kvm", "xen"), command_line=("x=1",))
    services = (
        builders.service("a", conflicts=["b"], conditions=conditions),
        builders.service("b", essential=True),
    )
    deferred = {start.name: start.deferred for start in forecast.foretell(services)}
    assert deferred == {
        "a": (
            "conflicts with b, which goes before it",
            "only on hypervisor kvm or xen",
            "only where /dev/tpm0 exists",
            "only with x=1 on the kernel's command line",
        ),
        "b": (),
    }


def test_a_circle_has_no_plan() -> None:
    services = (builders.service("a", after=["b"]), builders.service("b", after=["a"]))
    with pytest.raises(ValueError, match="circle"):
        forecast.foretell(services)


def test_a_later_stage_is_a_later_step_than_all_before_it() -> None:
    services = (
        builders.service("slow", readiness=SLOW),
        builders.service("a"),
        builders.service("b", after=["a"]),
        builders.service("late", stage=1),
    )
    late = forecast.foretell(services)[-1]
    assert (late.name, late.step, late.behind, late.seconds) == ("late", 3, "slow", 20.0)


@given(services=drawn.dags())
def test_every_turn_comes_after_those_that_it_waits_for(services: tuple[Service, ...]) -> None:
    starts = {start.name: start for start in forecast.foretell(services)}
    assert set(starts) == {service.name for service in services}
    for service in services:
        for other in graph.needs(service):
            if other in starts:
                assert starts[other].step < starts[service.name].step
                assert starts[other].seconds <= starts[service.name].seconds


def test_no_services_no_path() -> None:
    assert forecast.find_critical_path(forecast.foretell(())) == ()
