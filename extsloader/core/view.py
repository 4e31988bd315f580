"""The one truth as readers see it, computed from the world and nothing else."""

from dataclasses import replace

from extsloader.core import (
    candidates,
    fleet,
    health,
    measurement,
    memory,
    outlook,
    reload,
    rollout,
    safe_mode,
)
from extsloader.core.history import count_restarts
from extsloader.core.integrity import name_integrity
from extsloader.core.supervision import SETTLED, UP
from extsloader.model.ids import Digest, ServiceName, short
from extsloader.model.machine import Moment
from extsloader.model.measurement import Measuring
from extsloader.model.reasons import Code, Problem
from extsloader.model.severity import severity
from extsloader.model.source import name_place
from extsloader.model.status import (
    DAMAGED,
    AgentState,
    CandidateStatus,
    ImageStatus,
    ServiceLimits,
    ServiceStatus,
    StatusSnapshot,
)
from extsloader.model.world import (
    Candidate,
    CandidatePhase,
    Image,
    ImagePhase,
    ServicePhase,
    ServiceState,
    World,
)

BLOCKED = "blocked"
"""Shown instead of idle and created while a service waits for others."""

SKIPPED = "skipped"
"""Shown instead of idle: the service is not meant to run on this device, or a rival runs."""

NAMED = 3
"""So many services are named in a sentence."""

HURT = frozenset({ServicePhase.BACKING_OFF, ServicePhase.PARKED})


def take_snapshot(world: World, moment: Moment) -> StatusSnapshot:
    """The status without what is read live: usage, memory of the agent, generation."""
    state, reason = judge(world)
    return StatusSnapshot(
        state=state,
        reason=reason,
        image=_show_image(world),
        services=_show_services(world, moment),
        candidates=tuple(_show_candidate(world, c) for c in world.candidates.values()),
        floors=memory.floors(world),
        flags=memory.find_flags(world, moment),
        problems=(
            *_damages(world),
            *_unmeasured(world),
            *_standing(world),
            *world.leftovers.values(),
            *world.problems,
        ),
        previous_run=world.previous,
    )


def judge(world: World) -> tuple[AgentState, str]:
    """State of the whole and the reason, in one sentence."""
    if world.stopping:
        return AgentState.STOPPING, "asked to stop"
    if world.handing_over:
        return AgentState.STOPPING, "hands over to a newer agent, services run on"
    if off := rollout.explain_off(world.settings):
        return AgentState.DISABLED, off
    if world.services:
        judged = _judge_measuring(world) or _judge_services(world)
        return _add_safe_mode(world, *_add_damage(world, *judged))
    if world.active is not None:
        return AgentState.ACTIVATING, f"mounting image {short(world.active)}"
    return _judge_search(world)


def _judge_measuring(world: World) -> tuple[AgentState, str] | None:
    """Services of an earlier agent may be ready already: Pillar must not take that for the end."""
    if world.active is None or not measurement.is_due(world):
        return None
    return AgentState.ACTIVATING, f"measuring image {short(world.active)}"


def _judge_services(world: World) -> tuple[AgentState, str]:
    held = rollout.find_held(world)
    skipped = frozenset(fleet.find_skipped(world)) - held
    states = [s for name, s in world.services.items() if name not in skipped | held]
    if reason := _find_failure(world, states):
        return AgentState.FAILED, reason
    hurt = [s for s in states if _is_hurt(s)]
    if hurt:
        return AgentState.DEGRADED, _describe(hurt)
    waiting = [s for s in states if s.phase not in SETTLED]
    if waiting:
        refusal = world.admission.refusal if world.admission.tries else None
        held_up = f": {refusal.message}" if refusal else ""
        done = f"{len(states) - len(waiting)} of {len(states)} services are ready"
        return AgentState.ACTIVATING, done + held_up
    missed = [name for name in held if world.services[name].spec.essential or not states]
    if missed:
        return AgentState.DEGRADED, f"{', '.join(sorted(missed)[:NAMED])} must not run"
    more = f", {len(skipped)} skipped" if skipped else ""
    if not states:
        return AgentState.DEGRADED, f"no service is meant to run here{more}"
    more += f", {len(held)} must not run" if held else ""
    return AgentState.READY, f"all {len(states)} services are ready{more}"


def _find_failure(world: World, states: list[ServiceState]) -> str:
    """What makes the whole a failure: an essential service is lost, or too many others are."""
    fatal = list(fleet.find_fatal(world, states))
    if not fatal:
        return ""
    if fatal[0].spec.essential:
        return f"essential {_describe(fatal)}"
    budget = world.settings.limits.failures
    return f"{len(fatal)} services have given up, {budget} may: {_describe(fatal)}"


def _is_hurt(state: ServiceState) -> bool:
    if state.phase in SETTLED:
        return health.is_sick(state)
    return state.ready_once or state.phase in HURT


def _add_damage(world: World, state: AgentState, reason: str) -> tuple[AgentState, str]:
    """Services that run from a damaged image may fail at any time, even if none has yet."""
    damages = [damage.message for damage in _damages(world)]
    if not damages:
        return state, reason
    if state is AgentState.FAILED:
        return state, "; ".join((reason, *damages))
    return AgentState.DEGRADED, "; ".join((*damages, reason))


def _add_safe_mode(world: World, state: AgentState, reason: str) -> tuple[AgentState, str]:
    """Whatever runs then, it is not all of it."""
    if not world.safe:
        return state, reason
    return max(state, AgentState.DEGRADED, key=severity), f"safe mode: {reason}"


def _damages(world: World) -> tuple[Problem, ...]:
    return tuple(image.damage for image in world.images.values() if image.damage)


def _unmeasured(world: World) -> tuple[Problem, ...]:
    return tuple(image.unmeasured for image in world.images.values() if image.unmeasured)


def _standing(world: World) -> tuple[Problem, ...]:
    """What lasts until it is mended."""
    found = (
        safe_mode.explain(world),
        world.saving.problem,
        world.settings_problem,
        reload.find_pending(world),
    )
    return tuple(problem for problem in found if problem)


def _judge_search(world: World) -> tuple[AgentState, str]:
    broken = [i for i in world.images.values() if i.phase is ImagePhase.BROKEN]
    busy = [c for c in world.candidates.values() if c.phase in candidates.UNDECIDED and c.present]
    verifying = [c for c in busy if c.phase in (CandidatePhase.QUEUED, CandidatePhase.VERIFYING)]
    refused = [c for c in world.candidates.values() if c.phase is CandidatePhase.REFUSED]
    if verifying:
        return AgentState.VERIFYING, f"verifying {verifying[0].source.id}"
    if broken and broken[-1].problem:
        return AgentState.FAILED, broken[-1].problem.message
    if refused and refused[-1].problem:
        last = refused[-1]
        return AgentState.SEARCHING, f"refused {last.source.id}: {last.problem}"
    return AgentState.SEARCHING, "no image found yet"


def _describe(states: list[ServiceState]) -> str:
    words = [f"{s.spec.name} is {_say(s)}" for s in states[:NAMED]]
    more = len(states) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


def _say(state: ServiceState) -> str:
    return "unhealthy" if health.is_sick(state) else state.phase.replace("-", " ")


def _show_image(world: World) -> ImageStatus | None:
    image = world.images.get(world.active) if world.active else None
    if image is None:
        return None
    manifest = image.stored.manifest
    origin = world.candidates.get(image.source)
    return ImageStatus(
        name=manifest.name,
        version=manifest.version,
        sequence=manifest.sequence,
        digest=manifest.image.digest,
        source=name_place(image.source.path, origin.file if origin else ""),
        source_present=origin is not None and origin.present,
        integrity=name_integrity(world.settings, world.machine),
        phase=show_phase(image),
        measured=image.measuring is Measuring.DONE,
        keys=image.stored.key_ids,
    )


def show_phase(image: Image) -> str:
    """Its phase, or what is wrong with it while it is mounted."""
    mounted = image.phase is ImagePhase.MOUNTED
    return DAMAGED if image.damage and mounted else image.phase


def _show_services(world: World, moment: Moment) -> tuple[ServiceStatus, ...]:
    wishes = fleet.find_wishes(world)
    gate = fleet.find_gate(world, wishes)
    skipped, lost = fleet.find_skipped(world), fleet.find_lost(world)
    holds = rollout.find_holds(world)
    shown = []
    for name, state in world.services.items():
        if name in skipped and state.phase is ServicePhase.IDLE:
            shown.append(_show_skipped(state, skipped[name]))
        else:
            waiting = _waiting_for(world, state, wishes, gate)
            problem = state.problem or _find_problem(world, state, waiting, lost)
            status = _show_service(world, replace(state, problem=problem), waiting, moment)
            shown.append(_show_hold(status, state, holds.get(name)))
    return tuple(shown)


def _show_skipped(state: ServiceState, reason: str) -> ServiceStatus:
    spec = state.spec
    return ServiceStatus(
        name=spec.name,
        state=SKIPPED,
        reason=reason,
        since=state.since,
        essential=spec.essential,
        requires=spec.requires,
        wants=spec.wants,
        after=spec.after,
        conflicts=spec.conflicts,
        stage=spec.stage,
    )


def _find_problem(
    world: World,
    state: ServiceState,
    waiting: tuple[ServiceName, ...],
    lost: frozenset[ServiceName],
) -> Problem | None:
    """Why a service without a problem of its own does not run."""
    name, phase = state.spec.name, state.phase
    if name in lost and phase is ServicePhase.IDLE:
        missed = next(other for other in state.spec.requires if other in lost)
        reason = f"cannot run {name}: it requires {missed}, which has given up"
        return Problem(Code.DEPENDENCY, reason, f"extsloaderctl explain {missed}")
    held_up = phase is ServicePhase.CREATED and not waiting
    return world.admission.refusal if held_up else None


def _show_service(
    world: World, state: ServiceState, waiting: tuple[ServiceName, ...], moment: Moment
) -> ServiceStatus:
    problem = state.problem
    backing_off = state.phase is ServicePhase.BACKING_OFF
    blocked = state.phase in _NOT_STARTED and (waiting or problem)
    return ServiceStatus(
        name=state.spec.name,
        state=BLOCKED if blocked else state.phase,
        reason=_reason(state, waiting),
        code=problem.code if problem else None,
        hint=problem.hint if problem else "",
        outlook=outlook.foresee(world, state, waiting, moment),
        waiting_for=waiting,
        pid=state.pid,
        restarts=count_restarts(state),
        since=state.since,
        retry_in=max(0.0, state.retry_at - moment.now) if backing_off else None,
        essential=state.spec.essential,
        reduced=((*state.plan.reduced, *state.granted) if state.plan else ()),
        last_exit=str(state.last_exit) if state.last_exit else "",
        limits=_limits(state),
        requires=state.spec.requires,
        wants=state.spec.wants,
        after=state.spec.after,
        conflicts=state.spec.conflicts,
        stage=state.spec.stage,
    )


def _show_hold(
    shown: ServiceStatus, state: ServiceState, hold: rollout.HeldBy | None
) -> ServiceStatus:
    """A service that must not run, once nothing of it is left."""
    if hold is None or state.phase is not ServicePhase.IDLE:
        return shown
    return replace(
        shown, state=hold.state, reason=hold.reason, code=None, hint=hold.hint, waiting_for=()
    )


_NOT_STARTED = frozenset({ServicePhase.IDLE, ServicePhase.CREATED})


def _waiting_for(
    world: World, state: ServiceState, wishes: fleet.Wishes, gate: fleet.Gate
) -> tuple[ServiceName, ...]:
    """What it waits for; while it runs, what it misses of what it requires."""
    if state.phase in (ServicePhase.PARKED, ServicePhase.FINISHED):
        return ()
    if state.phase in _NOT_STARTED or state.phase is ServicePhase.CREATING:
        return fleet.waits_for(world, state, wishes, gate)
    return tuple(n for n in state.spec.requires if world.services[n].phase not in SETTLED)


def _reason(state: ServiceState, waiting: tuple[ServiceName, ...]) -> str:
    if state.problem is not None and (
        state.phase is not ServicePhase.READY or health.is_sick(state)
    ):
        return state.problem.message
    if waiting:
        verb = "misses" if state.phase in UP else "waits for"
        return f"{verb} {', '.join(waiting)}"
    if state.phase is ServicePhase.STARTED:
        said = f": {state.detail}" if state.detail else ""
        return f"waits for readiness by {state.spec.readiness.kind}{said}"
    return ""


def _limits(state: ServiceState) -> ServiceLimits | None:
    if state.plan is None:
        return None
    resources = state.plan.resources
    return ServiceLimits(
        memory=resources.memory or 0,
        swap=resources.swap,
        cpu_weight=resources.cpu_weight,
        cpu_quota=resources.cpu_quota,
        pids=resources.pids or 0,
    )


def _show_candidate(world: World, candidate: Candidate) -> CandidateStatus:
    problem = candidate.problem or _standby(world, candidate.digest)
    copying = candidate.phase is CandidatePhase.VERIFYING and candidate.total > 0
    return CandidateStatus(
        device=candidate.source.id.path,
        file=candidate.file,
        generation=candidate.source.id.generation,
        verdict=candidate.phase,
        code=problem.code if isinstance(problem, Problem) else None,
        reason=problem.message if isinstance(problem, Problem) else problem,
        hint=problem.hint if isinstance(problem, Problem) else "",
        progress=candidate.done / candidate.total if copying else None,
        size=candidate.source.size,
        present=candidate.present,
        digest=candidate.digest or "",
    )


def _standby(world: World, digest: Digest | None) -> str:
    """Why a verified image is not the active one."""
    active = world.images.get(world.active) if world.active else None
    image = world.images.get(digest) if digest else None
    if digest is None or digest == world.active or active is None:
        return ""
    if image is None:
        return "verified, and dropped from the store for better ones"
    if digest in world.history.failed:
        return "it failed before it had run well: used only where there is no other one"
    ours, theirs = _sequence(image), _sequence(active)
    if ours > theirs:
        return f"newer than the active image ({ours} > {theirs}): used at the agent's next start"
    return f"not newer than the active image ({ours} <= {theirs})"


def _sequence(image: Image) -> int:
    return image.stored.manifest.sequence
