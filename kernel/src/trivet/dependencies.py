"""Models that need other models: which an ensemble is made of, in which order they load, and what is missing.

Knows names and configurations; :mod:`trivet.model_control` does what follows from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from trivet.config.validation import raise_problems
from trivet.config.validation.ensemble_graph import check_graph
from trivet.errors import InvalidArgumentError
from trivet.lifecycle import ModelState

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.lifecycle import LoadedModel
    from trivet.model_table import Model

Members = Mapping[tuple[str, int], "LoadedModel"]
"""What an ensemble is made of, by the model's name and version as its steps write them."""

LATEST = -1
"""``model_version`` of a step: whatever version is the latest."""


def members_of(config: ModelConfig) -> dict[str, set[int]]:
    """The models that an ensemble hands requests on to, each with the versions that its steps name."""
    members: dict[str, set[int]] = {}
    for step in config.ensemble_scheduling.step:
        if step.model_name:
            members.setdefault(step.model_name, set()).add(step.model_version)
    return members


def find_members(name: str, config: ModelConfig, models: Mapping[str, Model], *, unloaded: str) -> Members:
    """The loaded models that the ensemble ``name`` needs; none for another model.

    ``unloaded`` is the reason of a version that nobody wants any more. Raises
    :class:`~trivet.errors.InvalidArgumentError` for the first that is missing, in Triton's words.
    """
    members = members_of(config)
    missing = [member for member in sorted(members) if _is_missing(models.get(member), unloaded)]
    if missing:
        raise InvalidArgumentError(
            f"ensemble {name} contains models that are not available or ambiguous: {', '.join(missing)}"
        )
    found: dict[tuple[str, int], LoadedModel] = {}
    for member, versions in members.items():
        if models[member].latest is None:
            raise InvalidArgumentError(f"ensemble '{name}' depends on '{member}' {_failure(models[member])}")
        for number in sorted(versions):
            loaded = current(models, member, number)
            if loaded is None:
                raise InvalidArgumentError(
                    f"ensemble '{name}' depends on '{member}' whose required version {number} is not loaded."
                )
            found[member, number] = loaded
    return found


def current(models: Mapping[str, Model], name: str, version: int) -> LoadedModel | None:
    """The ready version of a model that a step with this ``model_version`` would use now."""
    model = models.get(name)
    if model is None or version == LATEST:
        return model.latest if model else None
    entry = model.versions.get(version)
    return entry.loaded if entry is not None and entry.state is ModelState.READY else None


def are_current(models: Mapping[str, Model], members: Members) -> bool:
    """Whether an ensemble made of ``members`` would be made of the same now."""
    return all(current(models, *member) is loaded for member, loaded in members.items())


def complete_ensemble(config: ModelConfig, members: Mapping[str, ModelConfig], origin: str) -> None:
    """Check an ensemble against its members, and say in its configuration what follows from theirs.

    Raises :class:`~trivet.errors.InvalidArgumentError` with everything that does not fit; ``origin`` is where the
    configuration was written.
    """
    graph = check_graph(config, members)
    raise_problems(graph.problems, origin)
    config.model_transaction_policy.decoupled = graph.decoupled


def inherited_labels(config: ModelConfig, members: Members) -> dict[str, Sequence[str]]:
    """The class labels of an ensemble's outputs, as the models that write them have them."""
    return {
        tensor: labels
        for step in config.ensemble_scheduling.step
        for output, tensor in step.output_map.items()
        if (labels := members[step.model_name, step.model_version].labels.get(output))
    }


def _failure(model: Model) -> str:
    versions = sorted(model.versions.items())
    if model.members:
        return f"which is not valid. Model '{model.name}' failed with error: {versions[-1][1].reason}"
    reasons = "".join(
        f"version {number} is at {entry.state.value} state: {entry.reason};" for number, entry in versions
    )
    return f"which has no loaded version. Model '{model.name}' loading failed with error: {reasons}"


def _is_missing(model: Model | None, unloaded: str) -> bool:
    """No repository holds it, or it was unloaded on request."""
    if model is None or not model.versions:
        return True
    return model.latest is None and all(version.reason == unloaded for version in model.versions.values())


def find_circles(graph: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The models that need themselves, each with the circle as text, e.g. ``a -> b -> a``."""
    edges = {name: {need for need in needs if need in graph} for name, needs in graph.items()}
    found: dict[str, str] = {}
    while True:
        sorter = TopologicalSorter(edges)
        try:
            sorter.prepare()
        except CycleError as error:
            # It lists each model before the one that needs it.
            circle = list(reversed(error.args[1]))
            for place, name in enumerate(circle[:-1]):
                found[name] = " -> ".join([*circle[place:-1], *circle[: place + 1]])
                edges[name] = set()
        else:
            return found


async def in_order(
    graph: Mapping[str, Collection[str]], action: Callable[[str], Awaitable[None]]
) -> dict[str, BaseException | None]:
    """Run ``action`` for each name after those that it needs, at the same time where nothing is to be waited for.

    ``graph`` has no circle; needs that are not in it count as done. Returns what each raised: a failure holds up
    nothing, since who comes after it finds out for itself.
    """
    sorter = TopologicalSorter({name: [need for need in needs if need in graph] for name, needs in graph.items()})
    sorter.prepare()
    running: dict[asyncio.Future[None], str] = {}
    results: dict[str, BaseException | None] = {}
    try:
        while sorter.is_active():
            for name in sorter.get_ready():
                running[asyncio.ensure_future(action(name))] = name
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                name = running.pop(task)
                results[name] = task.exception()
                sorter.done(name)
    finally:
        for task in running:
            task.cancel()
    return results


def with_dependents(names: Collection[str], models: Mapping[str, Model]) -> Iterator[str]:
    """The ensembles that need any of ``names``, directly or through another ensemble, and are to be served."""
    seen = set(names)
    queue = list(names)
    while queue:
        needed = queue.pop()
        for model in models.values():
            if model.wanted and needed in model.members and model.name not in seen:
                seen.add(model.name)
                queue.append(model.name)
                yield model.name
