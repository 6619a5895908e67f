"""The task of a grid: read, built, and asked for its layers and data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.config import TaskConfig, estimator_label, sections_of
from harness.errors import did_you_mean
from harness.grid import choices
from harness.grid.choices import Combination, Placed
from harness.grid.errors import ErrorList
from harness.grid.parameters import as_declared, read_parameters
from harness.grid.yaml_nodes import Node, short_repr
from harness.measures import VAE_NAME
from harness.plugins.registry import source_of, tasks_of

if TYPE_CHECKING:
    from harness.plugins.registry import Registry
    from harness.tasks.task import Task

LONGEST_LABEL = 200


@dataclass(frozen=True, eq=False)
class TaskChoice(Placed):
    """A setting of a task with its place; its value is None for the VAE, whose settings are sections of their own."""

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections of a grid that are settings of the task's runs."""
        return sections_of(self.value)

    @property
    def name(self) -> str:
        return self.value.name if self.value else VAE_NAME

    def uses(self, path: str) -> bool:
        """Return whether a setting, by its dotted path, is one of the task's runs."""
        section, _, name = path.partition(".")
        if self.value is not None and section == "evaluation" and name in self.value.unused:
            return False
        return section in self.sections


def read_tasks(node: Node, registry: Registry, errors: ErrorList) -> list[TaskChoice]:
    """Return the tasks of a grid, in order, with all parameters: those of a name, a mapping, or a list of them."""
    tasks, found = tasks_of(registry), list[TaskChoice]()
    is_list = isinstance(node.value, list)
    items = choices.read_items(node, "task", "task", errors) if is_list else [(node, "task")]
    for item, path in items:
        if not isinstance(item.value, str | dict):
            rule = "the name of a task, or a mapping such as {name: polynomial, p: 2}"
            errors.expected(choices.placed(item, path), rule, item.plain())
            continue
        entries = {"name": item} if isinstance(item.value, str) else item.value
        if isinstance(item.value, dict) and "name" not in entries:
            errors.add(item.position, f"{path}.name", "expected the name of a task, got none.")
        name_path = f"{path}.name" if isinstance(item.value, dict) else path
        for name in choices.swept_values(entries["name"], name_path) if "name" in entries else []:
            if not isinstance(name.value, str) or name.value not in tasks:
                errors.expected(name, f"one of {', '.join(tasks)}", name.value, tasks, _hint(name.value, tasks))
            elif name.value == VAE_NAME:
                found += _vae(item, path, errors)
            else:
                found += _choices(item, path, tasks[name.value], errors)
    _refuse_repeats(found, errors)
    return _labelled(found)


def _labelled(found: list[TaskChoice]) -> list[TaskChoice]:
    """Return the tasks, each with the parameters in its label in which those of its name differ."""
    first = {one.name: one.value for one in reversed(found) if one.value}
    varying: dict[str, dict[str, None]] = {name: {} for name in first}
    for one in filter(lambda one: one.value is not None, found):
        other = first[one.name].params
        varying[one.name] |= dict.fromkeys(key for key, value in one.value.params.items() if value != other[key])
    return [_with_label(one, list(varying[one.name])) if one.value else one for one in found]


def _with_label(one: TaskChoice, keys: list[str]) -> TaskChoice:
    label = estimator_label(one.name, {key: one.value.params[key] for key in keys})
    if len(label) > LONGEST_LABEL:  # two that begin alike must not have one label
        digest = f" #{hashlib.sha256(label.encode()).hexdigest()[:8]}"
        label = label[: LONGEST_LABEL - len(digest)] + digest
    return replace(one, value=one.value.model_copy(update={"custom_label": label}))


def _refuse_repeats(found: list[TaskChoice], errors: ErrorList) -> None:
    first: dict[str, TaskChoice] = {}
    for one in found:
        before = first.setdefault(one.value.canonical if one.value else VAE_NAME, one)
        if before is not one:
            errors.add(one.position, one.path, f"expected each task once, got {one.name} again. First: {before.line}.")


def _hint(name: object, tasks: Mapping[str, Any]) -> str:
    similar = did_you_mean(name, tasks)
    return similar or "One of your own needs --plugin FILE."


def _vae(item: Node, path: str, errors: ErrorList) -> Iterator[TaskChoice]:
    given = [key for key in item.value if key != "name"] if isinstance(item.value, dict) else []
    for key in given:
        message = f"expected the settings of {VAE_NAME} in the section model, got {key} here."
        errors.add(item.keys[key], f"{path}.{key}", message)
    yield TaskChoice(None, item.position, path)


def _choices(item: Node, path: str, cls: type[Task], errors: ErrorList) -> Iterator[TaskChoice]:
    from estimators import parameters

    before = len(errors)
    fields = read_parameters(item, path, parameters(cls), ["name"], errors)
    if len(errors) > before:
        return
    for given in choices.combinations(fields, Placed(None, item.position, path), errors):
        config = _config(cls, given, Placed(None, item.position, path), errors)
        if config is not None:
            yield TaskChoice(config, item.position, path)


def _config(cls: type[Task], given: Combination, where: Placed, errors: ErrorList) -> TaskConfig | None:
    """Build a task and load its data, to check them. Return its settings and facts; None with an error."""
    import torch

    from estimators import parameters
    from harness.plugins.errors import in_one_line
    from harness.process_state import preserved
    from harness.training.data import draw_data, initial_task
    from harness.training.fingerprint import fingerprint

    asked = {key: as_declared(cls, key, choice.value) for key, choice in given.items()}
    params = {key: tuple(v) if isinstance(v, list) else v for key, v in {**parameters(cls), **asked}.items()}
    try:
        with preserved(), torch.random.fork_rng(devices=[]):
            task = initial_task(cls, params)
            data = None if cls.uses_images else draw_data(task)
            facts = _facts(task, data)
        if source_of(cls) is not None and data is not None:
            facts["fingerprint"] = fingerprint(data)
        return TaskConfig(name=cls.name, params=params, source=source_of(cls), **facts)
    except ValidationError as error:
        first = error.errors()[0]
        found = f"{short_repr(first['input'])} for {'.'.join(map(str, first['loc']))}"
        rule = "numbers, texts, true, false or null as parameters, and whole numbers as sizes of layers"
        errors.add(where.position, where.path, f"expected {rule}, got {found}.")
        return None
    except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
        message = str(error).removeprefix(f"{cls.name}: ")
        place = next((at for key, at in given.items() if key in message.replace(":", " ").split()), where)
        if not isinstance(error, ValueError) or source_of(cls) is not None:
            message = in_one_line(error, cls)
        errors.add(place.position, place.path, message)
        return None


def _facts(task: Task, data: Any) -> dict[str, Any]:
    from harness.tasks.splits import NoData, n_examples

    facts: dict[str, Any] = {
        "layers": dict(task.layers()),
        "measures": task.measures,
        "uses_images": task.uses_images,
        "evaluation_settings": task.evaluation_settings,
    }
    if isinstance(data, NoData):
        facts |= {"n_examples": (0, data.n_test, data.n_test), "steps_per_epoch": data.steps_per_epoch}
    elif data is not None:
        n_validation = 0 if data.validation is None else n_examples(data.validation)
        facts["n_examples"] = (data.n_train, n_validation, n_examples(data.test))
    return facts
