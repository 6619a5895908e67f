"""The task of a grid: a name, a mapping or a list, with its own parameters and sweeps, or one line for a mistake."""

from pathlib import Path

import pytest
from grid_errors import LINE
from small_tasks import SMALL_REGISTRY, HardGate, OneHotGate, Targets, grid_of

from estimators import REGISTRY
from harness.grid.errors import GridError
from harness.grid.load import load_grid
from harness.plugins.registry import Registry
from harness.tasks import NoData, Splits
from harness.tasks.registry import TASKS

REST = "\nestimators: [rloo]\nseeds: [0]\n"


class NoValidation(HardGate):
    """A task without validation data."""

    name = "no_validation"

    def data(self, config: object) -> Splits:
        splits = super().data(config)
        return Splits(train=splits.train, test=splits.test)


class Fractional(Targets):
    """A task whose epochs are no whole number of steps."""

    name = "fractional"

    def data(self, config: object) -> NoData:
        return NoData(steps_per_epoch=2.5)  # type: ignore[arg-type]


class NoSplits(HardGate):
    """A task whose data is no Splits."""

    name = "no_splits"

    def data(self, config: object) -> Splits:
        return 3  # type: ignore[return-value]


class OddParameter(HardGate):
    """A task with a parameter that is no plain value."""

    name = "odd_parameter"

    def __init__(self, *, n_experts: int = 3, options: dict = {}) -> None:  # noqa: B006
        super().__init__(n_experts=n_experts)


OWN = (NoValidation, Fractional, NoSplits, OddParameter)
REGISTRY_OF_TESTS = Registry(REGISTRY, {**SMALL_REGISTRY.tasks, **{cls.name: cls for cls in OWN}})


def refused(text: str) -> list[str]:
    """The errors of a grid without the file's name."""
    with pytest.raises(GridError) as caught:
        load_grid(Path("grid.yaml"), REGISTRY_OF_TESTS, text + REST + "name: small\n")
    assert all(LINE.fullmatch(line) for line in caught.value.messages)
    return [line.removeprefix("grid.yaml:") for line in caught.value.messages]


@pytest.mark.parametrize("task", ["targets", "{name: targets}", "[targets]", "[{name: targets}]", "{name: [targets]}"])
def test_a_task_is_a_name_a_mapping_or_a_list(task: str) -> None:
    [run] = grid_of(f"task: {task}{REST}").runs
    assert run.task is not None
    assert (run.task.name, run.label) == ("targets", "rloo")
    assert dict(run.task.params) == {"n_variables": 6, "p": 2.0, "steps": 4}
    assert (dict(run.layers), run.sizes) == ({"z": (6, 2)}, (4 * 128, 3, 3))


def test_parameters_are_swept_and_lists_are_values_of_those_that_are_lists() -> None:
    runs = grid_of(f"task: {{name: hard_gate, n_experts: [2, 4], hidden: [[3], [4, 5]]}}{REST}").runs
    found = [(run.task.params["n_experts"], run.task.params["hidden"], run.layers["z"]) for run in runs if run.task]
    assert found == [(2, (3,), (1, 2)), (2, (4, 5), (1, 2)), (4, (3,), (1, 4)), (4, (4, 5), (1, 4))]
    [one] = grid_of(f"task: {{name: hard_gate, hidden: [3, 4]}}{REST}").runs
    assert one.task is not None
    assert one.task.params["hidden"] == (3, 4)


def test_a_whole_number_for_a_float_is_the_float() -> None:
    keys = {grid_of(f"task: {{name: targets, p: {p}}}{REST}").runs[0].key for p in ("2", "2.0")}
    assert keys == {grid_of(f"task: targets{REST}").runs[0].key}


KNOWN = ", ".join([*SMALL_REGISTRY.tasks, *(cls.name for cls in OWN)])
PROBLEMS = {
    "unknown": (
        "task: hard_gat",
        f"1:7: task: expected one of {KNOWN}, got 'hard_gat'. Did you mean 'hard_gate'?",
    ),
    "nothing like it": (
        "task: {name: zzz}",
        f"1:14: task.name: expected one of {KNOWN}, got 'zzz'. One of your own needs --plugin FILE.",
    ),
    "no name": ("task: {n_experts: 2}", "1:7: task.name: expected the name of a task, got none."),
    "no mapping": (
        "task: 3",
        "1:7: task: expected the name of a task, or a mapping such as {name: polynomial, p: 2}, got 3.",
    ),
    "nothing": ("task: []", "1:7: task: expected a list of at least one task, got []."),
    "unknown parameter": (
        "task: [targets, {name: hard_gate, n_expert: 2}]",
        "1:35: task[1].n_expert: expected a key of task[1], got 'n_expert'. Did you mean 'n_experts'?",
    ),
    "impossible value": (
        "task: {name: polynomial, p: [2, -1]}",
        "1:33: task.p[1]: expected p > 0, got -1.0.",
    ),
    "impossible value of a plug-in": (
        "task: {name: hard_gate, n_experts: [2, 1]}",
        "1:40: task.n_experts[1]: ValueError: n_experts: expected at least 2, got 1. (small_tasks.py:31)",
    ),
    "not finite": ("task: {name: targets, p: .inf}", "1:26: task.p: expected a finite number, got inf."),
    "a mapping as a value": (
        "task: {name: targets, p: {a: 1}}",
        "1:26: task.p: expected a plain value, got {'a': 1}.",
    ),
    "no value": (
        "task: {name: targets, p: []}",
        "1:26: task.p: expected a value or a list of at least one, got [].",
    ),
    "no plain parameter": (
        "task: odd_parameter",
        "1:7: task: expected numbers, texts, true, false or null as parameters, and whole numbers as sizes of layers,"
        " got {} for",
    ),
    "model of another task": (
        "task: targets\nmodel: {n_latents: 3}",
        "2:20: model.n_latents: expected the settings of targets under task, got one of categorical_vae. Remove model,"
        " or the task.",
    ),
    "images of a task without": (
        "task: targets\ndata: {train_size: 3}",
        "2:20: data.train_size: expected no data, since targets takes no images, got train_size.",
    ),
    "bound of a task without": (
        "task: targets\nevaluation: {bound_samples: [3, 4]}",
        "2:30: evaluation.bound_samples: expected no bound_samples, which targets does not use, got one.",
    ),
    "pictures of a task without": (
        "task: [targets, hard_gate]\nevaluation: {n_images: 3}",
        "2:24: evaluation.n_images: expected no n_images, which targets, hard_gate does not use, got one.",
    ),
    "zipped settings of the VAE": (
        "task: targets\nzip: [{training.lr: [0.1, 0.2], model.n_latents: [2, 3]}]",
        "2:51: model.n_latents: expected the settings of targets under task, got one of categorical_vae. Remove model,"
        " or the task.",
    ),
    "parameters of the VAE": (
        "task: {name: categorical_vae, n_latents: 3}",
        "1:31: task.n_latents: expected the settings of categorical_vae in the section model, got n_latents here.",
    ),
    "no validation data": (
        "task: no_validation",
        "1:1: evaluation.validation_split: expected train or test, as no_validation has no validation data, got"
        " validation.",
    ),
    "validation asked for": (
        "task: no_validation\nevaluation: {validation_split: validation}",
        "2:32: evaluation.validation_split: expected train or test, as no_validation has no validation data, got"
        " validation.",
    ),
    "repeated": (
        "task: [targets, hard_gate, {name: targets, p: 2}]",
        "1:28: task[2]: expected each task once, got targets again. First: task[0] on line 1.",
    ),
    "repeated VAE": (
        "task: [categorical_vae, {name: categorical_vae}]",
        "1:25: task[1]: expected each task once, got categorical_vae again. First: task[0] on line 1.",
    ),
    "half a step": (
        "task: fractional",
        "1:7: task: ValueError: data: expected steps_per_epoch, a whole number from 1, got 2.5. (test_tasks.py:35)",
    ),
    "no splits": (
        "task: no_splits",
        "1:7: task: ValueError: no_splits: expected data() to return Splits or NoData, got int. (",
    ),
}


@pytest.mark.parametrize(("text", "expected"), PROBLEMS.values(), ids=list(PROBLEMS))
def test_a_mistake_about_a_task_is_one_line(text: str, expected: str) -> None:
    [line] = refused(text)
    assert line.startswith(expected)
    assert expected.endswith(("for", "(")) or line == expected


def test_without_validation_data_another_split_is_used() -> None:
    text = f"task: no_validation\nevaluation: {{validation_split: train}}{REST}name: small\n"
    [run] = load_grid(Path("grid.yaml"), REGISTRY_OF_TESTS, text).runs
    assert run.sizes == (32, 0, 16)


def labels(text: str) -> list[str]:
    return [run.label for run in grid_of(text + REST).runs]


def test_settings_that_only_one_of_the_tasks_uses_are_swept_for_it_alone() -> None:
    text = "task: [targets, categorical_vae]\nmodel: {n_latents: [2, 3]}\nevaluation: {bound_samples: [3, 4]}"
    assert labels(text) == [
        "rloo · task=targets",
        "rloo · task=categorical_vae · n_latents=2 · bound_samples=3",
        "rloo · task=categorical_vae · n_latents=2 · bound_samples=4",
        "rloo · task=categorical_vae · n_latents=3 · bound_samples=3",
        "rloo · task=categorical_vae · n_latents=3 · bound_samples=4",
    ]
    assert labels("task: [targets, categorical_vae]\ndata: {train_size: [100, 200]}") == [
        "rloo · task=targets",
        "rloo · task=categorical_vae · train_size=100",
        "rloo · task=categorical_vae · train_size=200",
    ]


def test_a_zipped_group_has_for_each_task_its_own_settings() -> None:
    text = "task: [targets, categorical_vae]\nzip: [{training.lr: [0.1, 0.2, 0.2], model.n_latents: [2, 3, 4]}]"
    assert labels(text) == [
        "rloo · task=targets · lr=0.1",
        "rloo · task=targets · lr=0.2",
        "rloo · task=categorical_vae · n_latents=2 · lr=0.1",
        "rloo · task=categorical_vae · n_latents=3 · lr=0.2",
        "rloo · task=categorical_vae · n_latents=4 · lr=0.2",
    ]


def test_notes_name_the_estimators_that_a_task_skips() -> None:
    text = "task: [hard_gate, one_hot_gate]\nestimators: [rloo, gumbel_softmax, igr]\nseeds: [0]\n"
    notes = grid_of(text + "training: {batch_size: 8}\n").notes
    assert [note for note in notes if note.startswith("skipped")] == [
        "skipped: igr on hard_gate: the estimator takes another number of logits for each latent than its classes",
        "skipped: gumbel_softmax on one_hot_gate: the cost needs one-hot codes, and the estimator evaluates it on soft"
        " ones",
        "skipped: igr on one_hot_gate: the cost needs one-hot codes, and the estimator evaluates it on soft ones",
    ]


def test_notes_call_the_data_of_a_task_examples() -> None:
    text = "task: [two_layers, categorical_vae]\ndata: {train_size: 30}\nestimators: [rloo]\nseeds: [0]\n"
    assert grid_of(text + "training: {batch_size: 100}\n").notes == (
        "training.batch_size 100 is more than the 24 training examples: each epoch is one update of all of them",
        "training.batch_size 100 is more than the 30 training images: each epoch is one update of all of them",
    )


def test_an_estimator_need_not_fit_the_shape_of_every_task() -> None:
    """`disarm` works with two classes: with one task that is an error, with several it is skipped where it must be."""
    grid = grid_of("task: [targets, hard_gate]\nestimators: [disarm]\nseeds: [0]\ntraining: {batch_size: 8}\n")
    assert len(grid.runs) == 2
    assert [note for note in grid.notes if note.startswith("skipped")] == [
        "skipped: disarm on hard_gate: expected n_categories = 2, got 3. Use disarm_sb."
    ]
    with pytest.raises(GridError, match="expected n_categories = 2, got 3"):
        grid_of("task: hard_gate\nestimators: [disarm]\nseeds: [0]\n")


def test_loading_a_grid_of_tasks_leaves_the_generator_alone() -> None:
    import torch

    torch.manual_seed(3)
    before = torch.get_rng_state()
    grid_of(f"task: [hard_gate, two_layers]{REST}")
    assert torch.equal(torch.get_rng_state(), before)


def test_tasks_that_come_with_it_are_known_without_a_plug_in() -> None:
    assert set(TASKS) <= set(SMALL_REGISTRY.tasks)
    assert OneHotGate.name not in TASKS


def test_long_labels_that_begin_alike_differ() -> None:
    wide = ", ".join(["100"] * 60)
    grid = grid_of(f"task: {{name: hard_gate, hidden: [[{wide}, 1], [{wide}, 2]]}}\nestimators: [rloo]\nseeds: [0]\n")
    assert len({run.task_label for run in grid.runs}) == len({run.label for run in grid.runs}) == 2
    assert max(len(run.task_label) for run in grid.runs) <= 200


@pytest.mark.parametrize("text", ["5", "", "[5]", "[[sudoku]]"])
def test_a_task_that_is_neither_a_name_nor_a_mapping_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(f"name: g\ntask: {text}\nestimators: [rloo]\nseeds: [0]\n")
    with pytest.raises(GridError) as caught:
        load_grid(path, REGISTRY)
    (line,) = caught.value.messages
    assert "expected the name of a task, or a mapping such as {name: polynomial, p: 2}, got" in line
