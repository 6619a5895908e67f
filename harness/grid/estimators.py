"""The estimators of a grid: read, built at each first temperature, and asked about the shape of every model."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.config import EstimatorConfig, estimator_label
from harness.errors import did_you_mean
from harness.grid import choices
from harness.grid.choices import Combination, Fields, Placed
from harness.grid.errors import ErrorList
from harness.grid.own_settings import KEYS, OwnSettings, own_keys, read_own, refuse_of_grid, refuse_own
from harness.grid.parameters import as_declared, read_parameters
from harness.grid.yaml_nodes import Node, short_repr
from harness.plugins.registry import source_of
from harness.schedules import Learned

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.plugins.registry import Registry

TYPO = 0.85
"""A name at least this similar to a known one is taken for a misspelling of it."""
TAU_HINT = "The temperature belongs to the schedule: write schedule: {kind: constant, tau: 0.5} instead."

PREVIOUS_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"imle": {"lam": 1.0}}
"""Values that labels leave out as if they were still defaults: finished runs have these labels, and keys depend on
those of a basket."""


@dataclass(frozen=True, eq=False)
class Candidate(Placed):
    """An estimator's setting with its place in the file, the places of its parameters, and what it has for itself."""

    given: Combination
    own: OwnSettings = field(default_factory=OwnSettings)


def own_settings_of(candidate: Placed) -> object:
    """Return what tells entries with settings of their own apart; None for an estimator without any."""
    if isinstance(candidate, Candidate) and candidate.own.is_given:
        return id(candidate.own)
    return None


def read_estimators(
    node: Node,
    registry: Registry,
    errors: ErrorList,
    where: str = "estimators",
    model: type[EstimatorConfig] = EstimatorConfig,
) -> list[Candidate]:
    """Return the estimators of a list in a grid, in order, every parameter resolved but τ."""
    found: list[Candidate] = []
    for item, path in choices.read_items(node, where, "estimator", errors):
        entries = {"name": item} if isinstance(item.value, str) else choices.read_mapping(item, path, errors)
        if isinstance(item.value, dict) and "name" not in entries:
            errors.add(item.position, f"{path}.name", "expected the name of an estimator, got none.")
        name_path = f"{path}.name" if isinstance(item.value, dict) else path
        own: dict[tuple[str, ...], OwnSettings] = {}
        for name in choices.swept_values(entries["name"], name_path) if "name" in entries else []:
            if isinstance(name.value, str) and name.value in registry:
                found += _candidates(item, path, registry[name.value], model, own, errors)
            else:
                rule = f"one of {len(registry)} names" if isinstance(name.value, str) else "a name"
                hint = _hint(name.value, registry)
                errors.expected(name, rule, name.value, hint=hint)
    return found


def _hint(name: object, registry: Registry) -> str:
    """Return what was or may have been meant: another name of one, a similar one, one of the user's own."""
    from estimators.aliases import meaning_of

    if meaning := meaning_of(name, registry):
        return meaning
    similar = did_you_mean(name, registry)
    if similar and (did_you_mean(name, registry, cutoff=TYPO) or any(map(source_of, registry.values()))):
        return similar
    return f"{similar or 'Known: ' + ', '.join(registry) + '.'} One of your own needs --plugin FILE."


def _candidates(
    item: Node,
    path: str,
    cls: type[Estimator],
    model: type[EstimatorConfig],
    own: dict[tuple[str, ...], OwnSettings],
    errors: ErrorList,
) -> Iterator[Candidate]:
    """Yield each setting of an entry; `own` has what was read of it for another name."""
    from estimators import parameters

    before = len(errors)
    fields = _parameters(item, path, cls, model, errors)
    keys = own_keys(item, parameters(cls))
    if "tau" not in model.reserved:
        refuse_own(item, path, keys, errors)
    elif keys not in own:
        own[keys] = read_own(item, path, keys, errors)
    if len(errors) > before:
        return
    for given in choices.combinations(fields, Placed(None, item.position, path), errors):
        try:
            yield Candidate(_config(cls, model, given), item.position, path, given, own.get(keys, OwnSettings()))
        except ValidationError:
            message = f"expected numbers, texts, true, false or null as the defaults of {cls.name}, got something else."
            errors.add(item.position, path, message)


def _parameters(item: Node, path: str, cls: type[Estimator], model: type[EstimatorConfig], errors: ErrorList) -> Fields:
    from estimators import parameters
    from estimators.unimix import UNIMIX

    known = {key: value for key, value in parameters(cls).items() if key not in model.reserved}
    known.setdefault(UNIMIX, 0.0)
    has_tau = any(key.startswith("tau") for key in cls.temperatures)
    special = Fields()
    for key, node in item.value.items() if isinstance(item.value, dict) else ():
        if key == "label":
            special[key] = choices.read_choices(node, f"{path}.{key}", EstimatorConfig, key, errors)
        elif key == "tau" and key in model.reserved and has_tau:
            got = short_repr(node.plain())
            errors.add(item.keys[key], f"{path}.{key}", f"expected no tau here, got {got}. {TAU_HINT}")
    also = ["name", "label", *(["tau"] if "tau" in model.reserved and has_tau else [])]
    also += [key for key in KEYS if key not in known]
    return special | read_parameters(refuse_of_grid(item, path, known, errors), path, known, also, errors)


def _config(cls: type[Estimator], model: type[EstimatorConfig], given: Combination) -> EstimatorConfig:
    from estimators import parameters
    from estimators.unimix import UNIMIX

    later = ("tau",) if "tau" in model.reserved else cls.temperatures
    defaults = {key: value for key, value in parameters(cls).items() if key not in later}
    asked = {key: as_declared(cls, key, choice.value) for key, choice in given.items() if key != "label"}
    if UNIMIX not in parameters(cls) and isinstance(asked.get(UNIMIX), float) and asked[UNIMIX] == 0:
        del asked[UNIMIX]  # the run is the one without the option: it keeps its key
    params = {key: tuple(value) if isinstance(value, list) else value for key, value in {**defaults, **asked}.items()}
    label = given["label"].value if "label" in given else None
    unsaid = {**defaults, **PREVIOUS_DEFAULTS.get(cls.name, {})}
    shown = {key: value for key, value in asked.items() if key not in unsaid or value != unsaid[key]}
    return model(
        name=cls.name, params=params, source=source_of(cls), label=label or estimator_label(cls.name, shown)[:200]
    )


BuiltEstimators = list[tuple[Candidate, "Estimator"]]


def schedules_for(cls: type[Estimator], schedules: Iterable[Placed]) -> list[Placed]:
    """Return the schedules that set exactly the temperatures of the estimator."""
    return [schedule for schedule in schedules if cls.temperatures and schedule.value.sets == cls.temperatures]


def schedules_of(candidate: Candidate, cls: type[Estimator], schedules: Iterable[Placed]) -> list[Placed]:
    """Return the schedules of an estimator: its own, or those of the grid that set its temperatures."""
    return schedules_for(cls, schedules if candidate.own.schedules is None else candidate.own.schedules)


def _refuse_unfit(candidate: Candidate, cls: type[Estimator], errors: ErrorList) -> None:
    """Add an error for each schedule of the estimator's own that does not set its temperatures."""
    for schedule in candidate.own.schedules or ():
        if schedule.value.sets != cls.temperatures:
            sets = f"{schedule.value.kind}, which sets {' and '.join(schedule.value.sets)}"
            has = f"{cls.name} has {' and '.join(cls.temperatures) or 'no temperature'}"
            errors.add(schedule.position, schedule.path, f"expected a schedule for {cls.name}, got {sets}: {has}.")


def build_all(
    candidates: Iterable[Candidate], schedules: Iterable[Placed], registry: Registry, errors: ErrorList
) -> BuiltEstimators:
    """Build every estimator at every first temperature, and leave torch's random state as it was."""
    import torch

    schedules = list(schedules)
    built: BuiltEstimators = []
    with torch.random.fork_rng(devices=[]):
        for candidate in candidates:
            cls = registry[candidate.value.name]
            mine = schedules_of(candidate, cls, schedules)
            if candidate.own.schedules is not None:
                _refuse_unfit(candidate, cls, errors)
            elif cls.uses_tau and schedules and not mine:
                errors.expected(candidate, "a schedule of tau", "none", hint="Add constant to schedules.")
            if mine and (also_set := [key for key in mine[0].value.sets if key in candidate.given]):
                place = candidate.given[also_set[0]]
                hint = f"A schedule of {'the grid' if candidate.own.schedules is None else 'its own'} sets it."
                errors.expected(place, f"no {also_set[0]} here", place.value, hint=hint)
            starts: list[Placed | None] = [*mine] or [None]
            found = [_start(candidate, registry, schedule, errors) for schedule in starts]
            built += [(candidate, estimator) for estimator in found[-1:] if estimator is not None]
    return built


def _start(candidate: Candidate, registry: Registry, schedule: Placed | None, errors: ErrorList) -> Estimator | None:
    """Return the estimator at a schedule's first temperatures. If that fails, or cannot learn, add an error."""
    first = schedule.value.temperatures(0, steps_per_epoch=1, n_steps=1) if schedule else {}
    estimator: Estimator | None = build_one(candidate, registry, first, errors)
    if estimator is not None and schedule is not None and isinstance(schedule.value, Learned):
        from harness.training.learned_tau import check_learns

        try:
            check_learns(copy.deepcopy(estimator), schedule.value)
        except ValueError as error:
            errors.add(schedule.position, schedule.path, str(error))
            return None
    return estimator


def check_shapes(
    built: BuiltEstimators, shapes: Iterable[tuple[int, int]], errors: ErrorList, *, all_of_them: bool = True
) -> None:
    """Add an error for each estimator that refuses (L, K) of a layer; or all of them, if not `all_of_them` must fit."""
    shapes = list(shapes)
    for candidate, estimator in built:
        refused = list(filter(None, (_shape_error(estimator, shape) for shape in shapes)))
        for error in refused if all_of_them or len(refused) == len(shapes) else []:
            _refuse(candidate, error, errors)


def _shape_error(estimator: Estimator, shape: tuple[int, int]) -> Exception | None:
    try:
        estimator.check_shape(*shape)
    except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
        return error
    return None


def check_compiles(
    built: BuiltEstimators, schedules: Iterable[Placed], shape: tuple[int, int], errors: ErrorList
) -> None:
    """Add an error for what cannot be compiled: an estimator with parameters of its own, a learned temperature."""
    for candidate, estimator in built:
        prepared = copy.deepcopy(estimator)
        prepared.prepare(*shape, n_context=1)
        if next(prepared.parameters(), None) is not None:
            rule = "an estimator without parameters of its own where training.compile is on"
            errors.expected(candidate, rule, candidate.value.name, hint="Use compile: auto.")
    for schedule in schedules:
        if isinstance(schedule.value, Learned):
            errors.expected(schedule, "no learned schedule where training.compile is on", "one", hint="Use auto.")


def build_one(candidate: Candidate, registry: Registry, start: Mapping[str, float], errors: ErrorList) -> Any:
    """Return the estimator with these first temperatures. If it cannot be built, add an error and return None."""
    from estimators import build
    from harness.process_state import preserved

    name = candidate.value.name
    try:
        with nullcontext() if source_of(registry[name]) is None else preserved():
            return build(name, registry, **{**candidate.value.params, **start})
    except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
        _refuse(candidate, error, errors)
        return None


def _refuse(candidate: Candidate, error: Exception, errors: ErrorList) -> None:
    """Add an error at the parameter that the message names, or else at the estimator."""
    message = str(error).removeprefix(f"{candidate.value.name}: ")
    if not isinstance(error, ValueError):
        message = f"expected parameters that {candidate.value.name} accepts, got {type(error).__name__}: {message}"
    named = [place for key, place in candidate.given.items() if re.search(rf"\b{re.escape(key)}\b", message)]
    place = named[0] if named else candidate
    errors.add(place.position, place.path, message or "expected parameters that the constructor accepts.")
