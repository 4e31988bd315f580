"""Taking over a configuration while the agent runs: what can change at once, and what cannot."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from extsloader.core import candidates, rollout
from extsloader.core.step import Step
from extsloader.model.control import Answer, Result
from extsloader.model.effects import Effect, ListSources, LoadSettings, Reply
from extsloader.model.ids import Digest
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings
from extsloader.model.world import World

LIVE = frozenset(
    {
        *("enabled", "rollout.percent", "rollout.salt", "rollout.allow", "rollout.deny"),
        *("limits.parallel_creates", "limits.parallel_helpers", "limits.store_images"),
        *(
            "timeouts.choose",
            "timeouts.probation",
            "timeouts.retry_base",
            "timeouts.retry_cap",
            "timeouts.retry_limit",
        ),
    }
)
"""Settings that only the core reads. The others are built into adapters, plans and containers."""

RESTART = "systemctl restart extsloaderd, when its services may be restarted"


def begin(world: World, request: int) -> Step:
    """Read the configuration; who asks while it is being read gets the same answer."""
    waiting = (*(world.reloading or ()), request)
    order: tuple[Effect, ...] = (LoadSettings(),) if world.reloading is None else ()
    return Step(replace(world, reloading=waiting), order)


def take(world: World, loaded: Settings, revoked: frozenset[Digest] = frozenset()) -> Step:
    """The new configuration is good: whatever it changes follows from the next look at it."""
    changed = list(_differences(world.settings, loaded))
    live = [key for key in changed if key in LIVE]
    later = tuple(key for key in changed if key not in LIVE)
    merged = _merge(world.settings, loaded, live)
    live += ["revoked_images"] if revoked != world.bounds.revoked else []
    judged = candidates.revoke(world, revoked)
    new = replace(
        judged, settings=merged, not_in_force=later, settings_problem=None, reloading=None
    )
    begun = rollout.is_on(merged) and not rollout.is_on(world.settings)
    step = list_sources(new) if begun else Step(new)
    return Step(step.world, (*step.effects, *_reply(world, _describe(live, later))))


def refuse(world: World, problems: tuple[str, ...]) -> Step:
    """The old configuration stays in force, and the status says why."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    first = problems[0] if problems else "no reason was given"
    problem = Problem(
        Code.STATE,
        f"cannot take the new configuration: {first}{more}",
        "extsloaderd --check-config tells all; the old one stays in force",
    )
    answer = Answer(
        result=Result.REFUSED, message="; ".join(problems), hint="the old one stays in force"
    )
    kept = replace(world, settings_problem=problem, reloading=None)
    return Step(kept, _reply(world, answer))


def list_sources(world: World) -> Step:
    """Look for images everywhere, and wait for what each provider has."""
    listings = tuple(ListSources(provider) for provider in world.providers)
    return Step(replace(world, awaited=frozenset(world.providers)), listings)


def find_pending(world: World) -> Problem | None:
    """That the files say something else than what is in force."""
    if not world.not_in_force:
        return None
    keys = ", ".join(world.not_in_force)
    return Problem(Code.STATE, f"cannot change {keys} while the agent runs", RESTART)


def _describe(live: list[str], later: tuple[str, ...]) -> Answer:
    parts = [f"changed: {', '.join(live)}"] if live else []
    parts += [f"only after a restart of the agent: {', '.join(later)}"] if later else []
    if not parts:
        return Answer(result=Result.ALREADY, message="nothing has changed")
    return Answer(result=Result.ACCEPTED, message="; ".join(parts), hint=RESTART if later else "")


def _reply(world: World, answer: Answer) -> tuple[Effect, ...]:
    return tuple(Reply(request, answer) for request in world.reloading or ())


def _differences(old: Any, new: Any, above: str = "") -> Iterator[str]:
    """Dotted names of the settings that differ."""
    for field in fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if is_dataclass(before):
            yield from _differences(before, after, f"{above}{field.name}.")
        elif before != after:
            yield above + field.name


def _merge(old: Settings, new: Settings, keys: list[str]) -> Settings:
    """The old settings with these of the new ones."""
    merged: Any = old
    for key in keys:
        table, _, name = key.rpartition(".")
        if table:
            value = getattr(getattr(new, table), name)
            merged = replace(merged, **{table: replace(getattr(merged, table), **{name: value})})
        else:
            merged = replace(merged, **{name: getattr(new, name)})
    return merged  # type: ignore[no-any-return] # `replace` keeps the type
