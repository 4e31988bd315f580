"""The status as OpenMetrics 1.0 text, for Prometheus and its like.

https://prometheus.io/docs/specs/om/open_metrics_spec
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from extsloader.model.status import AgentState, ServiceStatus, StatusSnapshot, Usage

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PREFIX = "extsloader_"
SUFFIXES = {"counter": "_total", "info": "_info"}
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = Mapping[str, object]
Samples = Iterable[tuple[Labels, float | None]]


def render(status: StatusSnapshot) -> bytes:
    """All families; what is not known has no sample."""
    lines = [*_describe_whole(status), *_describe_services(status.services), "# EOF"]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _describe_whole(status: StatusSnapshot) -> Iterator[str]:
    states = [({"extsloader_state": state}, state is status.state) for state in AgentState]
    yield from _family("state", "stateset", "State of the whole.", states)
    image, agent = status.image, status.agent
    if image:
        names = ("name", "version", "sequence", "digest", "integrity", "phase")
        labels = {name: getattr(image, name) for name in names}
        yield from _family("image", "info", "The active image.", [(labels, 1)])
    if agent:
        yield from _family("agent", "info", "The agent.", [({"version": agent.version}, 1)])
        text = "Resident memory of the agent."
        yield from _family("agent_memory_bytes", "gauge", text, [({}, agent.rss)])
        text = "When the agent started, in seconds since 1970."
        yield from _family("agent_start_time_seconds", "gauge", text, [({}, agent.started)])
        text = "Helpers that were killed, but are in a read that the kernel does not end."
        yield from _family("stuck_helpers", "gauge", text, [({}, agent.stuck_helpers)])
    found = Counter(candidate.verdict for candidate in status.candidates if candidate.present)
    verdicts = [({"verdict": verdict}, number) for verdict, number in sorted(found.items())]
    yield from _family("candidates", "gauge", "Places that are there, by verdict.", verdicts)


def _describe_services(services: tuple[ServiceStatus, ...]) -> Iterator[str]:
    def each(name: str, kind: str, text: str, values: Iterable[float | None]) -> Iterator[str]:
        pairs = zip(services, values, strict=True)
        yield from _family(name, kind, text, [({"service": s.name}, value) for s, value in pairs])

    states = [({"service": s.name, "state": s.state}, 1) for s in services]
    yield from _family("service_state", "gauge", "The state that each service is in.", states)
    text = "Whether it decides about the whole."
    yield from each("service_essential", "gauge", text, [s.essential for s in services])
    yield from each("service_restarts", "counter", "Restarts.", [s.restarts for s in services])
    limits = [s.limits for s in services]
    text = "Its limit of memory."
    memory = [limit.memory if limit else None for limit in limits]
    yield from each("service_memory_limit_bytes", "gauge", text, memory)
    uses = [s.usage or Usage() for s in services]
    text = "Memory that it uses."
    yield from each("service_memory_bytes", "gauge", text, [use.memory for use in uses])
    text = "Processor time of its present control group."
    yield from each("service_cpu_seconds", "counter", text, [use.cpu_seconds for use in uses])
    yield from each("service_pids", "gauge", "Its tasks.", [use.pids for use in uses])
    text = "Processes that were killed for want of memory."
    yield from each("service_oom_kills", "counter", text, [use.oom_kills for use in uses])


def _family(name: str, kind: str, text: str, samples: Samples) -> Iterator[str]:
    known = [(labels, value) for labels, value in samples if value is not None]
    if not known:
        return
    yield f"# TYPE {PREFIX}{name} {kind}"
    yield f"# HELP {PREFIX}{name} {text}"
    for labels, value in known:
        inside = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
        yield f"{PREFIX}{name}{SUFFIXES.get(kind, '')}{{{inside}}} {value + 0}"


def _escape(label: object) -> str:
    return str(label).translate(_ESCAPES)
