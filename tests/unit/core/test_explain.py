"""From a symptom to its cause, for an operator."""

from dataclasses import replace

from extsloader.core.explain import explain
from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import Explanation, ImageStatus, ServiceStatus, StatusSnapshot


def status(name: str, state: str, **fields: object) -> ServiceStatus:
    return replace(ServiceStatus(name=ServiceName(name), state=state), **fields)  # type: ignore[arg-type]


def ask(name: str, *services: ServiceStatus) -> Explanation:
    found = explain(StatusSnapshot(services=services), ServiceName(name), "/log/{}.log".format)
    assert found is not None
    return found


BROKER = status(
    "broker", "backing-off", reason="exit code 7", retry_in=8.4, restarts=3, last_exit="exit code 7"
)
TELEMETRY = status("telemetry", "blocked", reason="waits for broker", waiting_for=("broker",))
DASHBOARD = status("dashboard", "blocked", reason="waits for telemetry", waiting_for=("telemetry",))


def test_nobody_knows_a_service_that_is_not_there() -> None:
    assert explain(StatusSnapshot(), ServiceName("ghost"), "/log/{}.log".format) is None


def test_a_symptom_is_followed_to_its_root() -> None:
    found = ask("dashboard", DASHBOARD, TELEMETRY, BROKER)
    assert found.summary == (
        "dashboard is blocked because broker is backing off: exit code 7; next try in 8 s"
    )
    assert found.steps == (
        "dashboard is blocked: waits for telemetry",
        "telemetry is blocked: waits for broker",
        "broker is backing off: exit code 7; next try in 8 s",
        "broker was restarted 3 times; it last ended with exit code 7",
        "its log is /log/broker.log",
    )
    assert found.next_step == "read its log: /log/broker.log"


def test_a_service_that_is_its_own_cause_speaks_for_itself() -> None:
    found = ask("broker", replace(BROKER, hint="free port 1883"))
    assert found.summary == "broker is backing off: exit code 7; next try in 8 s"
    assert found.next_step == "free port 1883"


def test_a_ready_service_needs_nothing() -> None:
    found = ask("a", status("a", "ready", reduced=("no io limits",)))
    assert found.summary == "a is ready"
    assert found.next_step == "nothing to do"
    assert found.steps == ("a is ready", "a runs with less than it asked for: no io limits")


def test_a_ready_service_is_followed_to_what_it_misses() -> None:
    user = status("a", "ready", reason="misses broker", waiting_for=("broker",))
    found = ask("a", user, BROKER)
    assert found.summary == "a is ready but broker is backing off: exit code 7; next try in 8 s"
    assert found.root == "broker"


def test_one_restart_is_told_as_one_and_no_end_is_made_up() -> None:
    found = ask("a", status("a", "backing-off", restarts=1))
    assert "a was restarted once" in found.steps


def test_a_service_on_its_way_only_needs_patience() -> None:
    assert ask("a", status("a", "starting")).next_step == "wait: it is on its way"


def test_a_requirement_that_gave_up_is_the_cause_even_if_nobody_waits_for_it() -> None:
    base = status("base", "parked", reason="gave up")
    user = status("user", "idle", requires=("base",))
    assert ask("user", user, base).summary == "user is idle because base is parked: gave up"


def test_what_is_fine_is_no_cause_and_a_circle_has_an_end() -> None:
    one = status("one", "blocked", waiting_for=("good", "two"))
    two = status("two", "blocked", waiting_for=("one",))
    found = ask("one", one, two, status("good", "finished"))
    assert found.summary == "one is blocked because two is blocked"


def test_a_service_says_for_how_long_it_waits_and_what_will_happen_then() -> None:
    user = replace(TELEMETRY, outlook="it has waited 12 s; it starts when they are ready")
    assert ask("telemetry", user, BROKER).steps[0] == (
        "telemetry is blocked: waits for broker; it has waited 12 s; it starts when they are ready"
    )


def test_a_damaged_image_is_a_cause_that_lies_below_its_services() -> None:
    image = ImageStatus(
        name="pkgs",
        version="1",
        sequence=1,
        digest="d",
        source="/dev/sdb",
        source_present=True,
        integrity="verity",
        phase="damaged",
    )
    bad = Problem(Code.VERITY, "cannot trust image d: a block is damaged", "look at the disk")
    snapshot = StatusSnapshot(image=image, services=(BROKER,), problems=(bad,))
    found = explain(snapshot, BROKER.name, "/log/{}.log".format)
    assert found is not None
    assert found.steps[-1] == bad.message
    assert found.next_step == bad.hint
    whole = explain(
        replace(snapshot, image=replace(image, phase="mounted")), BROKER.name, "/log/{}.log".format
    )
    assert whole is not None
    assert bad.message not in whole.steps
