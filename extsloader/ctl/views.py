"""What a person sees: the truth first, then the worst, then the rest. Pure text."""

from collections.abc import Sequence

from extsloader.ctl.text import (
    Cell,
    Style,
    format_age,
    format_duration,
    format_size,
    format_time,
    lay_table,
)
from extsloader.model.ids import Digest, short
from extsloader.model.severity import Severity, severity
from extsloader.model.source import name_place
from extsloader.model.status import (
    AgentStatus,
    CandidateStatus,
    Change,
    Explanation,
    ImageStatus,
    PreviousRun,
    ServiceStatus,
    StatusSnapshot,
)
from extsloader.model.text import printable

QUIET = frozenset({"verified", "ignored"})
"""Verdicts that `status` does not mention."""


def show_status(status: StatusSnapshot, now: float, style: Style) -> str:
    """The whole on one screen."""
    candidates = [c for c in status.candidates if c.present and c.verdict not in QUIET]
    blocks = [
        [show_headline(status, style), *_show_facts(status, now)],
        show_services(status.services, now, style) if status.services else [],
        show_candidates(candidates, style) if candidates else [],
        [f"problem: {printable(str(problem))}" for problem in status.problems],
        _suggest(status),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def show_headline(status: StatusSnapshot, style: Style) -> str:
    """State and reason, in one line."""
    state = style.paint(status.state, severity(status.state))
    return f"{state}: {printable(status.reason)}" if status.reason else state


def show_services(services: Sequence[ServiceStatus], now: float, style: Style) -> list[str]:
    """A table with what is worst on top."""
    header = ("SERVICE", "STATE", "FOR", ">RESTARTS", ">MEMORY", ">LIMIT", "WHY")
    worst_first = sorted(services, key=lambda s: (-severity(s.state), s.name))
    lines = lay_table(header, [_service_row(s, now) for s in worst_first], style)
    if any(s.essential for s in services):
        lines.append(style.faint("* essential: without it the device is failed, not degraded"))
    return lines


def show_candidates(candidates: Sequence[CandidateStatus], style: Style) -> list[str]:
    """A table of the places where an image was looked for."""
    header = ("CANDIDATE", ">SIZE", "VERDICT", "WHY")
    return lay_table(header, [_candidate_row(c) for c in candidates], style)


def show_explanation(explanation: Explanation, style: Style) -> str:
    """From the symptom to the root cause, and what to do."""
    lines = [printable(explanation.summary)]
    if explanation.steps:
        steps = enumerate(explanation.steps, 1)
        lines += ["", *(f"  {number}. {printable(step)}" for number, step in steps)]
    if explanation.log:
        lines += ["", style.faint(f"last lines of {explanation.root}:")]
        lines += [f"  | {printable(line)}" for line in explanation.log]
    if explanation.history:
        lines += ["", style.faint(f"what happened to {explanation.service}:")]
        lines += [f"  {show_change(change, style)}" for change in explanation.history]
    if explanation.next_step:
        lines += ["", f"{style.faint('next step:')} {printable(explanation.next_step)}"]
    return "\n".join(lines)


def show_change(change: Change, style: Style) -> str:
    """One line for one change of state."""
    new = style.paint(printable(change.new), severity(change.new))
    parts = [
        style.faint(format_time(change.wall)),
        f"{printable(change.subject)}: {printable(change.old)} -> {new}",
        printable(_with_code(change.reason, change.code)),
    ]
    return "  ".join(part for part in parts if part)


def _show_facts(status: StatusSnapshot, now: float) -> list[str]:
    facts = [f"for       {format_age(status.since, now)}"]
    if status.image:
        facts += _show_image(status.image)
    facts += _show_trust(status)
    if status.agent:
        facts.append(f"agent     {_describe_agent(status.agent, now)}")
    if status.previous_run:
        facts.append(f"before    {_describe_previous(status.previous_run)}")
    return facts


def _show_trust(status: StatusSnapshot) -> list[str]:
    """The floors, and what is not as it should be; nothing where there is nothing to say."""
    floors = ", ".join(f"{floor.name} {floor.sequence}" for floor in status.floors)
    flags = ", ".join(flag.replace("-", " ") for flag in status.flags)
    parts = [f"floor {floors}" if floors else "", flags]
    said = "; ".join(part for part in parts if part)
    return [f"trust     {printable(said)}"] if said else []


def _show_image(image: ImageStatus) -> list[str]:
    digest = short(Digest(image.digest))
    source = image.source if image.source_present else f"{image.source} (taken out)"
    keys = (
        f", signed by {', '.join(short(Digest(key)) for key in image.keys)}" if image.keys else ""
    )
    name = f"{image.name} {image.version}, sequence {image.sequence}, {digest}, {image.phase}"
    kept = "kept in store" + (", read through dm-verity" if image.integrity == "verity" else "")
    kept += ", measured by the TPM" if image.measured else ""
    return [
        f"image     {printable(name)}",
        f"          {printable(f'from {source}, {kept}{keys}')}",
    ]


def _describe_agent(agent: AgentStatus, now: float) -> str:
    age, rss = format_age(agent.started, now), format_size(agent.rss)
    stuck = f", {agent.stuck_helpers} helpers hang in reads" if agent.stuck_helpers else ""
    return printable(f"extsloaderd {agent.version}, pid {agent.pid}, up {age}, memory {rss}{stuck}")


def _describe_previous(run: PreviousRun) -> str:
    """Only an end that nobody asked for needs its last words."""
    end = run.message
    if run.last_sign:
        end += f", last sign {format_time(run.last_sign)}"
    quiet = run.ended in ("stopped", "handed-over") or not run.last_error
    return printable(end if quiet else f"{end}; last error: {run.last_error}")


def _suggest(status: StatusSnapshot) -> list[str]:
    bad = [s for s in status.services if severity(s.state) >= Severity.WARNING]
    if not bad:
        return []
    worst = min(bad, key=lambda s: (-severity(s.state), s.name))
    return [f"why: extsloaderctl explain {printable(worst.name)}"]


def _service_row(service: ServiceStatus, now: float) -> tuple[Cell | str, ...]:
    return (
        service.name + (" *" if service.essential else ""),
        Cell(service.state, severity(service.state)),
        format_age(service.since, now),
        str(service.restarts),
        format_size(service.usage.memory if service.usage else None),
        format_size(service.limits.memory if service.limits else None),
        _why(service),
    )


def _why(service: ServiceStatus) -> str:
    waiting = f"waits for {', '.join(service.waiting_for)}" if service.waiting_for else ""
    reason = _with_code(service.reason or waiting, service.code)
    parts = [reason, *(f"reduced: {text}" for text in service.reduced)]
    if service.retry_in is not None:
        parts.append(f"next start in {format_duration(service.retry_in)}")
    return "; ".join(part for part in parts if part)


def _candidate_row(candidate: CandidateStatus) -> tuple[Cell | str, ...]:
    verdict = candidate.verdict
    if candidate.progress is not None:
        verdict += f" {candidate.progress:.0%}"
    parts = [
        "" if candidate.present else "taken out",
        _with_code(candidate.reason, candidate.code),
        candidate.hint,
    ]
    return (
        name_place(candidate.device, candidate.file),
        format_size(candidate.size),
        Cell(verdict, severity(candidate.verdict)),
        "; ".join(part for part in parts if part),
    )


def _with_code(reason: str, code: str | None) -> str:
    return f"{reason} [{code}]".lstrip() if code else reason
