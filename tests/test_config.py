"""A run's settings are strict and frozen, and its key depends on them and on nothing else."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from estimators import REGISTRY
from harness.config import (
    DataConfig,
    EstimatorConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    estimator_label,
)
from harness.schedules import Constant, Exponential, NoSchedule

RLOO = EstimatorConfig(name="rloo", params={"n_samples": 4})
ST = EstimatorConfig(name="straight_through", params={"n_samples": 1})


def run(**settings) -> RunConfig:
    return RunConfig(**{"estimator": ST, **settings})


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (DataConfig, {"name": "cifar 10"}),
        (DataConfig, {"path": "x.npz"}),
        (DataConfig, {"name": "file"}),
        (DataConfig, {"name": "file", "path": ""}),
        (DataConfig, {"name": "file", "path": "x.npz", "size": 28}),
        (DataConfig, {"name": "folder", "path": "x", "size": 0}),
        (DataConfig, {"name": "folder", "path": "x", "size": (1, 2, 3)}),
        (DataConfig, {"binarization": True}),
        (DataConfig, {"validation_fraction": 1.0}),
        (DataConfig, {"validation_fraction": -0.1}),
        (DataConfig, {"train_size": 0}),
        (ModelConfig, {"n_categories": 1}),
        (ModelConfig, {"n_latents": "3"}),
        (ModelConfig, {"n_latents": 3.0}),
        (ModelConfig, {"n_latents": True}),
        (ModelConfig, {"hidden": ()}),
        (ModelConfig, {"hidden": (0,)}),
        (ModelConfig, {"activation": "softsign"}),
        (TrainingConfig, {"epochs": 0}),
        (TrainingConfig, {"lr": 0.0}),
        (TrainingConfig, {"lr": "1e-3"}),
        (TrainingConfig, {"lr": float("nan")}),
        (TrainingConfig, {"momentum": 0.9}),
        (TrainingConfig, {"momentum": 1.0, "optimizer": "sgd"}),
        (TrainingConfig, {"grad_clip": 0.0}),
        (TrainingConfig, {"epochs": 5, "lr_warmup": 5}),
        (TrainingConfig, {"lr_warmup": 0.5}),
        (TrainingConfig, {"learning_rate": 1.0}),
        (EvaluationConfig, {"bound_samples": -1}),
        (EvaluationConfig, {"test_samples": 0}),
        (EvaluationConfig, {"validation_split": "dev"}),
        (EvaluationConfig, {"validation_split": "test", "checkpoint": "best"}),
    ],
)
def test_impossible_settings_are_refused(model, settings):
    with pytest.raises(ValidationError):
        model(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": -1},
        {"seed": 2**32},
        {"seed": 1.0},
        {"seed": True},
        {"device": "tpu"},
        {"device": "cuda:"},
        {"device": "cpu\n"},
        {"schedule": {"kind": "sine"}},
    ],
)
def test_impossible_runs_are_refused(settings):
    with pytest.raises(ValidationError):
        run(**settings)


def test_validation_on_no_images_says_what_to_do():
    with pytest.raises(ValidationError, match="Set validation_split: train or test"):
        run(data=DataConfig(validation_fraction=0.0))
    run(data=DataConfig(validation_fraction=0.0), evaluation=EvaluationConfig(validation_split="train"))


def test_sgd_may_have_momentum():
    assert TrainingConfig(optimizer="sgd", momentum=0.9).momentum == 0.9


def test_an_estimator_parameter_cannot_have_the_name_of_a_grid_key():
    for word in ("name", "label", "source", "tau"):
        with pytest.raises(ValidationError):
            EstimatorConfig(name="x", params={word: 1})


def test_the_key_is_16_hex_digits_and_the_same_in_every_process():
    code = (
        "from harness.config import *\n"
        "print(RunConfig(estimator=EstimatorConfig(name='straight_through', params={'n_samples': 1})).key)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert run().key == other
    assert len(other) == 16
    int(other, 16)


def test_the_key_is_the_hash_of_the_canonical_json():
    canonical = run().canonical
    assert json.dumps(json.loads(canonical), sort_keys=True, separators=(",", ":")) == canonical
    assert set(json.loads(canonical)) == {
        "data", "device", "estimator", "evaluation", "model", "schedule", "seed", "training",
    }  # fmt: skip


def test_every_setting_changes_the_key():
    changed = [
        run(),
        run(seed=1),
        run(device="cuda"),
        run(estimator=RLOO),
        run(estimator=EstimatorConfig(name="straight_through", params={"n_samples": 2})),
        run(estimator=EstimatorConfig(name="straight_through", params={"n_samples": 1}, source="0" * 64)),
        run(schedule=Constant(tau=0.5)),
        run(schedule=NoSchedule()),
        run(data=DataConfig(split_seed=1)),
        run(model=ModelConfig(hidden=(512,))),
        run(training=TrainingConfig(lr=2e-3)),
        run(evaluation=EvaluationConfig(n_images=0)),
    ]
    assert len({one.key for one in changed}) == len(changed)
    assert len(set(changed)) == len(changed)


NEW = [("training", TrainingConfig, "lr_warmup", 2), ("evaluation", EvaluationConfig, "checkpoint", "best")]
"""Settings that came after the first runs were stored: their defaults are left out of the key."""


@pytest.mark.parametrize(("section", "model", "name", "other"), NEW)
def test_a_new_setting_is_in_the_key_and_stored_unless_it_is_the_default(section, model, name, other):
    default = model(**{name: model.model_fields[name].default})
    path = f"{section}.{name}"
    assert run(**{section: default}).key == run().key == "5db3beeac8089de5"
    assert path not in run(**{section: default}).flat()
    changed = run(**{section: model(**{name: other})})
    assert changed.key != run().key
    assert changed.flat()[path] == other
    assert RunConfig.from_json(changed.to_json()) == changed


def test_labels_order_and_number_forms_do_not_change_the_key():
    key = run(schedule=Constant(tau=1.0)).key
    assert run(schedule=Constant(tau=1)).key == key
    assert run(schedule=Constant(tau=1.0, label="mine")).key == key
    labelled = EstimatorConfig(name="straight_through", params={"n_samples": 1}, label="mine")
    assert run(estimator=labelled, varies=("training.lr",)).key == key
    one = EstimatorConfig(name="x", params={"a": 1, "b": 2})
    assert run(estimator=one).key == run(estimator=EstimatorConfig(name="x", params={"b": 2, "a": 1})).key


def test_a_changed_copy_has_its_own_key():
    """The key is computed once and kept; a copy with other settings must not keep it."""
    original = run()
    first = original.key
    changed = original.model_copy(update={"training": original.training.model_copy(update={"lr": 0.5})})
    assert changed.key == run(training=TrainingConfig(lr=0.5)).key != original.key
    assert original.model_copy(update={"seed": 3}).key == run(seed=3).key != first
    assert first == original.key
    assert original == run()


def test_flat_names_every_setting_with_plain_values():
    flat = run(estimator=RLOO, schedule=Exponential(rate=1e-5, label="x")).flat()
    assert flat["training.lr"] == 1e-3
    assert flat["model.hidden"] == "[512, 256]"
    assert flat["data.train_size"] is None
    assert flat["estimator.name"] == "rloo"
    assert flat["estimator.n_samples"] == 4
    assert flat["schedule.kind"] == "exponential"
    assert flat["device"] == "cpu"
    assert flat["seed"] == 0
    assert not any("label" in name for name in flat)
    assert all(isinstance(value, bool | int | float | str | None) for value in flat.values())
    assert run(schedule=Constant(tau=0.5)).flat()["schedule.tau"] == 0.5


def test_labels_and_names():
    one = run(varies=("training.lr", "data.name", "device", "model.hidden"), seed=3)
    assert one.label == (
        "straight_through(n_samples=1) · constant(1) · lr=0.001 · data=mnist-mini · device=cpu · hidden=[512, 256]"
    )
    assert one.name == f"{one.label} · seed 3"
    assert run(estimator=RLOO, schedule=NoSchedule()).label == "rloo(n_samples=4)"
    assert estimator_label("rloo", {}) == "rloo"


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text("ab\n\"'é→")
params = st.dictionaries(
    st.text("abcxyz_", min_size=1).filter(lambda key: key not in EstimatorConfig.reserved),
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), numbers, texts, st.tuples(numbers)),
)


@given(params, st.floats(1e-6, 10), st.integers(0, 2**32 - 1))
def test_json_round_trip(params, tau, seed):
    one = run(
        estimator=EstimatorConfig(name="x", params=params, label="é"),
        schedule=Constant(tau=tau),
        model=ModelConfig(hidden=(8,)),
        seed=seed,
        varies=("training.lr",),
    )
    other = RunConfig.from_json(one.to_json())
    assert other == one
    assert (other.key, other.label, other.flat()) == (one.key, one.label, one.flat())


def test_build_estimator_starts_at_the_first_tau_of_the_schedule():
    built = run(schedule=Exponential(initial=2.0, rate=1e-3)).build_estimator(REGISTRY)
    assert built.tau == 2.0
    assert run(estimator=RLOO, schedule=NoSchedule()).build_estimator(REGISTRY).tau is None


def test_build_estimator_refuses_impossible_runs():
    with pytest.raises(ValueError, match="expected a schedule for its temperature"):
        run(schedule=NoSchedule()).build_estimator(REGISTRY)
    with pytest.raises(ValueError, match="expected one of"):
        run(estimator=EstimatorConfig(name="nope")).build_estimator(REGISTRY)
