"""The `tune` section of a grid: its search space and budget, checked by building every trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.config import ModelConfig, RunConfig, TrainingConfig, check_splits
from harness.errors import did_you_mean
from harness.grid import choices
from harness.grid.choices import MAX_RUNS, Placed
from harness.grid.errors import ErrorList
from harness.grid.yaml_nodes import Node
from harness.schedules import KINDS, Settings
from harness.search.space import Dimension, with_values
from harness.search.tuning import FIRST_TRIAL_SEED, Tuned, Tuning, grid_size

if TYPE_CHECKING:
    from harness.plugins.registry import Registry

KEYS = ("space", "trials", "sampler", "default")
SAMPLERS = ("random", "grid")
MODELS: Mapping[str, type[Settings]] = {"training": TrainingConfig, "model": ModelConfig}
NOT_SEARCHED = ("training.epochs", "training.compile")
_OF_ESTIMATOR = re.compile(r"estimators\[([^]]*)\]\.(.+)")
_PLACES = "training.lr, model.…, schedule.tau, or estimators[rloo].n_samples"


def read_tuned(
    node: Node, settings: Sequence[RunConfig], last_seed: int, registry: Registry, errors: ErrorList
) -> tuple[Tuning, list[Tuned]] | None:
    """Return the section, and its competitors with their trials: `settings`, as runs with any seed.

    `last_seed` is the largest that a final run may have.
    """
    if last_seed >= FIRST_TRIAL_SEED:
        errors.add(node.position, "tune", f"expected seeds below {FIRST_TRIAL_SEED:,}, where those of trials begin.")
    tuning = read_tuning(node, settings, registry, errors)
    if tuning is None:
        return None
    searched = [one.path for one in tuning.space if one.path.partition(".")[0] in MODELS]
    names = [tuning.competitor(run) for run in settings]
    bases = [
        run.model_copy(
            update={
                "varies": tuple(dict.fromkeys([*run.varies, *searched])),
                "competitor": name if names.count(name) == 1 else run.label,
            }
        )
        for run, name in zip(settings, names, strict=True)
    ]
    return tuning, tuned_competitors(tuning, node, bases, registry, errors)


def read_tuning(node: Node, bases: Sequence[RunConfig], registry: Registry, errors: ErrorList) -> Tuning | None:
    """Return the section for the competitors of a grid, given as runs with any seed. With an error there is none."""
    before = len(errors)
    entries = choices.read_mapping(node, "tune", errors)
    if len(errors) > before:
        return None
    for key in entries.keys() - set(KEYS):
        choices.refuse_key(node, key, f"tune.{key}", KEYS, errors)
    space = _space(entries.get("space", Node({}, node.position, {})), bases, registry, errors)
    sampler = choices.placed(entries.get("sampler", Node("random", node.position, {})), "tune.sampler")
    if sampler.value not in SAMPLERS:
        errors.expected(sampler, f"one of {', '.join(SAMPLERS)}", sampler.value, SAMPLERS)
    with_default = choices.placed(entries.get("default", Node(True, node.position, {})), "tune.default")
    if not isinstance(with_default.value, bool):
        errors.expected(with_default, "true or false", with_default.value)
    if len(errors) > before:
        return None
    dimensions = tuple(space.values())
    trials = _trials(node, entries, dimensions, sampler.value, bases, errors)
    _check_bases(node, bases, errors)
    if len(errors) > before:
        return None
    return Tuning(dimensions, trials, sampler.value, with_default.value)


def tuned_competitors(
    tuning: Tuning, node: Node, bases: Sequence[RunConfig], registry: Registry, errors: ErrorList
) -> list[Tuned]:
    """Return the competitors with their trials. Values that do not go together are errors."""
    where = Placed(None, node.keys.get("space", node.position), "tune.space")
    found: list[Tuned] = []
    first: dict[str, RunConfig] = {}
    for base in bases:
        try:
            trials = tuning.trials_of(base)
            for run in trials:
                _check_run(run, registry)
        except ValueError as error:  # ValidationError is one
            errors.add(where.position, where.path, f"expected values that go together for {base.label}, {_got(error)}")
            return []
        other = first.setdefault(trials[0].key, base)
        if other is not base:
            message = f"expected settings that the grid does not sweep, got the same trials for {other.label}"
            errors.add(where.position, where.path, f"{message} and {base.label}. Keep one of them.")
            return []
        found.append(Tuned(base, tuple(trials)))
    return found


def _space(node: Node, bases: Sequence[RunConfig], registry: Registry, errors: ErrorList) -> dict[str, Dimension]:
    entries = choices.read_mapping(node, "tune.space", errors)
    if not entries and isinstance(node.value, dict):
        errors.add(node.position, "tune.space", f"expected at least one setting to search, got none: {_PLACES}.")
    found: dict[str, Dimension] = {}
    for path, value in entries.items():
        place = Placed(None, node.keys[path], f"tune.space.{path}")
        before = len(errors)
        dimension = _dimension(path, value, place, errors)
        if dimension is not None and len(errors) == before:
            _check_dimension(dimension, place, bases, registry, errors)
            found[path] = dimension
    return found


def _dimension(path: str, node: Node, place: Placed, errors: ErrorList) -> Dimension | None:
    """Return a setting with its choices or its interval."""
    if isinstance(node.value, list):
        values = [_plain(item) for item in node.value]
        if not values:
            errors.add(place.position, place.path, "expected at least one value, got an empty list.")
        elif len(set(map(repr, values))) < len(values):
            errors.expected(place, "each value once", node.plain())
        return Dimension(path, tuple(values))
    if not isinstance(node.value, dict) or len(node.value) != 1 or next(iter(node.value)) not in ("log", "uniform"):
        errors.expected(place, "a list of values, {log: [low, high]} or {uniform: [low, high]}", node.plain())
        return None
    ((scale, ends),) = node.value.items()
    pair = ends.plain()
    if not (isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))):
        errors.expected(place, f"{{{scale}: [low, high]}} with two numbers", node.plain())
    elif pair[0] >= pair[1]:
        errors.expected(place, "low < high", pair)
    elif scale == "log" and pair[0] <= 0:
        errors.expected(place, "low > 0 on a logarithmic scale", pair, hint="Use uniform.")
    else:
        return Dimension(path, low=float(pair[0]), high=float(pair[1]), is_log=scale == "log")
    return None


def _check_dimension(
    dimension: Dimension, place: Placed, bases: Sequence[RunConfig], registry: Registry, errors: ErrorList
) -> None:
    """Add an error for a setting that is unknown, that no competitor has, or that refuses one of its values."""
    if message := _unknown(dimension, bases, registry):
        errors.add(place.position, place.path, message)
        return
    base = next((run for run in bases if dimension.applies(run)), None)
    if base is None:
        errors.add(place.position, place.path, "expected a setting that a run of the grid has, got one of none.")
        return
    for value in dimension.choices or dimension.ends:
        name = dimension.path.rpartition(".")[2]
        try:
            _check_run(with_values(base, {dimension.path: value}), registry)
        except ValidationError as error:
            choices.add_validation_errors(error.errors(), place, {name: place}, errors)
        except ValueError as error:
            errors.add(place.position, place.path, str(error))


def _unknown(dimension: Dimension, bases: Sequence[RunConfig], registry: Registry) -> str:
    """Return the message about a path that is none; an empty text for others."""
    path = dimension.path
    if path in NOT_SEARCHED:
        return f"expected a setting that leaves the budget equal for all, got {path}."
    if match := _OF_ESTIMATOR.fullmatch(path):
        return _unknown_parameter(match[1], match[2], bases, registry)
    section, _, name = path.partition(".")
    known = {key: list(choices.fields_by_alias(model)) for key, model in MODELS.items()}
    known["schedule"] = [key for kind in KINDS.values() for key in choices.fields_by_alias(kind)]
    known["schedule"] = [key for key in dict.fromkeys(known["schedule"]) if key not in ("kind", "label")]
    if section in known and name in known[section]:
        return ""
    hint = did_you_mean(name, known[section]) if section in known else did_you_mean(path, _paths(known))
    return f"expected the name of a setting, such as {_PLACES}, got {path!r}. {hint}".rstrip()


def _unknown_parameter(name: str, key: str, bases: Sequence[RunConfig], registry: Registry) -> str:
    from estimators import parameters

    names = {run.estimator.name for run in bases}
    if name not in names:
        return f"expected an estimator of the grid, got {name!r}. {did_you_mean(name, names)}".rstrip()
    known = set(parameters(registry[name])) - {"tau"}
    return "" if key in known else f"expected a parameter of {name}, got {key!r}. {did_you_mean(key, known)}".rstrip()


def _paths(known: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{section}.{name}" for section, names in known.items() for name in names]


def _check_run(run: RunConfig, registry: Registry) -> None:
    """Raise ValueError if a run cannot be: its estimator, its shape, its images."""
    estimator = run.build_estimator(registry)
    for shape in run.layers.values():
        estimator.check_shape(*shape)
    check_splits(run.task, run.data, run.evaluation, run.model)


def _trials(
    node: Node,
    entries: Mapping[str, Node],
    space: tuple[Dimension, ...],
    sampler: str,
    bases: Sequence[RunConfig],
    errors: ErrorList,
) -> int:
    if sampler == "grid":
        if intervals := [dimension for dimension in space if not dimension.choices]:
            message = "expected a list of values for the sampler grid, got an interval. Use sampler: random."
            errors.add(node.position, f"tune.space.{intervals[0].path}", message)
            return 0
        size = max((grid_size(space, base) for base in bases), default=1)
        entries = {"trials": Node(size, node.position, {}), **entries}
        asked = choices.placed(entries["trials"], "tune.trials")
        if isinstance(asked.value, int) and 0 < asked.value < size:
            errors.expected(asked, f"at least the {size} combinations", asked.value)
    if "trials" not in entries:
        errors.add(node.position, "tune.trials", "expected the number of trials of each estimator, got none.")
        return 0
    trials = choices.placed(entries["trials"], "tune.trials")
    if not (isinstance(trials.value, int) and not isinstance(trials.value, bool) and trials.value >= 1):
        errors.expected(trials, "a whole number >= 1", trials.value)
        return 0
    if trials.value * len(bases) > MAX_RUNS:
        errors.expected(trials, f"at most {MAX_RUNS} trials of all {len(bases)} competitors", trials.value)
    return int(trials.value)


def _check_bases(node: Node, bases: Sequence[RunConfig], errors: ErrorList) -> None:
    if len({run.device for run in bases}) > 1:
        errors.add(node.position, "tune", "expected one device, got several. Tune on one of them.")
    others = [split for run in bases if (split := run.evaluation.validation_split) != "validation"]
    if others:
        message = "expected evaluation.validation_split: validation, since trials are compared there, got"
        errors.add(node.position, "tune", f"{message} {others[0]}.")


def _plain(node: Node) -> Any:
    value = node.plain()
    return tuple(value) if isinstance(value, list) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _got(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"got: {first.get('ctx', {}).get('error', first['msg'])}"
    return f"got: {error}"
