"""Runs of tasks: what is in their key, their params and their labels; those of the VAE stay as they were."""

import json

import pytest
from small_tasks import SMALL_REGISTRY, grid_of, run_of

from harness.config import (
    BasketConfig,
    DataConfig,
    DiagnosticsConfig,
    EstimatorConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from harness.measures import VAE_MEASURES, Measure
from harness.schedules import NoSchedule


def test_the_keys_of_runs_of_the_vae_are_those_before_there_were_tasks() -> None:
    """Computed by the version before tasks: stored runs would otherwise be repeated."""
    plain = RunConfig(estimator=EstimatorConfig(name="straight_through", params={"n_samples": 1}))
    other = RunConfig(
        data=DataConfig(name="mnist", binarization="fixed", train_size=1000),
        model=ModelConfig(n_latents=8, n_categories=4, hidden=(64,), precision="bfloat16"),
        training=TrainingConfig(epochs=3, lr=3e-4, grad_clip=1.0),
        evaluation=EvaluationConfig(bound_samples=10, n_images=2),
        diagnostics=DiagnosticsConfig(basket=(BasketConfig(name="rloo", params={"n_samples": 2}),)),
        estimator=EstimatorConfig(name="rloo", params={"n_samples": 4}),
        schedule=NoSchedule(),
        device="cuda",
        seed=7,
    )
    assert (plain.key, other.key) == ("5db3beeac8089de5", "e717f6fbf1a9d7fb")
    assert not any(name.startswith("task") for name in plain.flat())
    assert "task" not in json.loads(plain.to_json())
    assert (plain.task_name, plain.measures, plain.layers) == ("categorical_vae", VAE_MEASURES, {"z": (20, 10)})


def test_a_grid_that_names_the_vae_has_the_runs_of_one_that_names_none() -> None:
    rest = "estimators: [rloo]\nseeds: [0, 1]\nmodel: {n_latents: [2, 3]}\n"
    plain = grid_of(rest).runs
    for task in ("categorical_vae", "{name: categorical_vae}", "[categorical_vae]"):
        named = grid_of(f"task: {task}\n{rest}").runs
        assert [(run.key, run.label, run.to_json()) for run in named] == [
            (run.key, run.label, run.to_json()) for run in plain
        ]


def test_facts_of_a_task_are_not_in_the_key_but_its_parameters_and_source_are() -> None:
    run = run_of("hard_gate")
    assert run.task is not None

    def changed(**changes: object) -> str:
        return run.model_copy(update={"task": run.task.model_copy(update=changes)}).key

    facts = {
        "layers": {"z": (9, 9)},
        "measures": (Measure("other"),),
        "uses_images": False,
        "n_examples": (1, 1, 1),
        "steps_per_epoch": 7,
        "custom_label": "mine",
    }
    assert {changed(**{name: value}) for name, value in facts.items()} == {run.key}
    others = [
        changed(name="other"),
        changed(source="0" * 64),
        changed(params={**run.task.params, "n_experts": 4}),
        run.model_copy(update={"task": None}).key,
        run.key,
    ]
    assert len(set(others)) == len(others)


def test_the_key_has_only_what_the_task_uses() -> None:
    run = run_of("targets", "reinforce")
    found = json.loads(run.canonical)
    assert set(found) == {"task", "training", "evaluation", "estimator", "schedule", "device", "seed"}
    assert found["task"]["params"] == {"n_variables": 6, "p": 2.0, "steps": 4}
    assert len(found["task"]["source"]) == 64
    assert not {"n_images", "bound_samples"} & found["evaluation"].keys()
    assert json.dumps(found, sort_keys=True, separators=(",", ":")) == run.canonical
    unused = run.model_copy(update={"data": DataConfig(name="mnist"), "model": ModelConfig(n_latents=3)})
    unused = unused.model_copy(update={"evaluation": EvaluationConfig(n_images=3, bound_samples=7)})
    assert unused.key == run.key
    assert run.model_copy(update={"evaluation": EvaluationConfig(test_samples=2)}).key != run.key


@pytest.mark.parametrize("task", ["targets", "two_layers", "{name: hard_gate, hidden: [4, 3], balance: 0.5}"])
def test_a_run_of_a_task_survives_json(task: str) -> None:
    run = run_of(task, "gumbel_softmax")
    again = RunConfig.from_json(run.to_json())
    assert again == run
    assert (again.key, again.label, again.flat()) == (run.key, run.label, run.flat())
    assert (again.measures, dict(again.layers), again.sizes) == (run.measures, dict(run.layers), run.sizes)
    assert not {"data", "model"} & json.loads(run.to_json()).keys()


def test_params_of_a_task_run_are_those_of_the_task_and_none_of_the_model() -> None:
    run = run_of("{name: hard_gate, hidden: [4, 3]}")
    flat = run.flat()
    assert run.task is not None
    assert {name: value for name, value in flat.items() if name.startswith("task.")} == {
        "task.name": "hard_gate",
        "task.source": run.task.source,
        "task.balance": 0.0,
        "task.hidden": "[4, 3]",
        "task.n_experts": 3,
    }
    assert not [name for name in flat if name.startswith(("model.", "data."))]
    assert not {"evaluation.n_images", "evaluation.bound_samples"} & flat.keys()
    assert flat["evaluation.test_samples"] == 1


REST = "estimators: [rloo]\nseeds: [0]\n"


def labels(text: str) -> list[str]:
    return [run.label for run in grid_of(text + REST).runs]


def test_swept_parameters_of_a_task_are_in_its_label_which_is_an_axis() -> None:
    text = "task: {name: targets, p: [1.5, 2], n_variables: 4}\ntraining: {lr: [0.1, 0.2]}\n"
    assert labels(text) == [
        "rloo · task=targets(p=1.5) · lr=0.1",
        "rloo · task=targets(p=1.5) · lr=0.2",
        "rloo · task=targets(p=2) · lr=0.1",
        "rloo · task=targets(p=2) · lr=0.2",
    ]
    first = grid_of(text + REST).runs[0]
    assert first.setting.axes == (("task", "targets(p=1.5)"), ("lr", "0.1"))
    assert labels("task: {name: hard_gate, hidden: [[3], [4, 5]]}\n") == [
        "rloo · task=hard_gate(hidden=[3])",
        "rloo · task=hard_gate(hidden=[4, 5])",
    ]


def test_several_tasks_are_an_axis_with_the_swept_parameters_of_each() -> None:
    text = "task: [categorical_vae, targets, {name: hard_gate, n_experts: [2, 3]}]\nmodel: {n_latents: [2, 3]}\n"
    assert labels(text) == [
        "rloo · task=categorical_vae · n_latents=2",
        "rloo · task=categorical_vae · n_latents=3",
        "rloo · task=targets",
        "rloo · task=hard_gate(n_experts=2)",
        "rloo · task=hard_gate(n_experts=3)",
    ]
    assert len({run.key for run in grid_of(text + REST).runs}) == 5


def test_a_run_counts_the_evaluations_of_nested_layers() -> None:
    run = run_of("two_layers", "{name: rloo, n_samples: 3}")
    assert run.n_cost_evals(run.build_estimator(SMALL_REGISTRY)) == 9
