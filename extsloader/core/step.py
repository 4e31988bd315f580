"""A world and the orders that led to it, so that decisions can be chained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Concatenate, ParamSpec, TypeVar

from extsloader.model.effects import Effect
from extsloader.model.reasons import Problem
from extsloader.model.world import World

Key = TypeVar("Key")
Value = TypeVar("Value")
Args = ParamSpec("Args")


REMEMBERED = 64
"""Problems: a sentence that names a process is another one each time."""


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of a decision."""

    world: World
    effects: tuple[Effect, ...] = ()

    def then(
        self,
        decide: Callable[Concatenate[World, Args], "Step"],
        *args: Args.args,
        **kw: Args.kwargs,
    ) -> "Step":
        """The next decision, on this outcome's world."""
        following = decide(self.world, *args, **kw)
        return Step(following.world, self.effects + following.effects)


def put(mapping: Mapping[Key, Value], key: Key, value: Value) -> dict[Key, Value]:
    """The mapping with one entry replaced or added."""
    return {**mapping, key: value}


def leave(world: World, subject: str, problem: Problem | None) -> World:
    """Remember that something of a subject could not be undone, or forget it: now it was."""
    if world.leftovers.get(subject) == problem:
        return world
    others = {name: left for name, left in world.leftovers.items() if name != subject}
    return replace(world, leftovers=others if problem is None else put(others, subject, problem))


def note(world: World, problem: Problem) -> World:
    """Remember what else went wrong and belongs to no subject."""
    if problem in world.problems:
        return world
    return replace(world, problems=(*world.problems, problem)[-REMEMBERED:])
