"""Gradient diagnostics during training: their metrics, their settings, and that they do not change training."""

import math
from collections.abc import Callable

import pytest
import torch

from estimators import REGISTRY, build
from harness import train
from harness.config import BasketConfig, DiagnosticsConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from harness.events import EpochDone, Finished
from harness.gradients.during_training import Diagnostics, to_parameters
from harness.gradients.quality import METRICS
from harness.grid.errors import GridError
from harness.grid.load import load_grid
from harness.training import seeding
from harness.training.state import start

Make = Callable[..., RunConfig]
BASKET = (
    BasketConfig(name="rloo", params={"n_samples": 2}, label="rloo(n_samples=2)"),
    BasketConfig(name="gumbel_softmax"),
)
SETTINGS = DiagnosticsConfig(every=2, resamples=64, probe=20, basket=BASKET)


def run(config: RunConfig) -> list[dict[str, float]]:
    return [e.metrics for e in train.train(config, REGISTRY) if isinstance(e, EpochDone | Finished)]


@pytest.mark.parametrize("name", ["gumbel_softmax", "reinforce"])
@pytest.mark.parametrize("binarization", ["none", "resampled"])
def test_training_is_the_same_to_the_bit_with_and_without(name: str, binarization: str, tiny_run: Make) -> None:
    plain = tiny_run(name).model_copy(
        update={"data": tiny_run().data.model_copy(update={"binarization": binarization})}
    )
    found = [run(plain), run(plain.model_copy(update={"diagnostics": SETTINGS}))]
    kept = [
        [
            {key: value for key, value in m.items() if not key.startswith(("time", "memory", "gradient"))}
            for m in metrics
        ]
        for metrics in found
    ]
    assert kept[0] == kept[1]
    assert any(key.startswith("gradient/") for key in found[1][0])


def test_every_generator_of_the_device_is_restored(tiny_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed moves the generators of all devices: each block that seeds names the one in use."""
    seeded: list[torch.device] = []
    states = seeding._states
    monkeypatch.setattr(seeding, "_states", lambda device: (seeded.append(device), states(device))[1])
    run(tiny_run(diagnostics=SETTINGS))
    assert len(seeded) > 10
    assert set(seeded) == {torch.device("cpu")}


def test_every_metric_of_every_estimator_is_logged_on_logits_and_encoder(tiny_run: Make) -> None:
    metrics = run(tiny_run(diagnostics=SETTINGS))[0]
    assert metrics["gradient/truth_error"] == 0
    for label in ("own", "rloo-n_samples-2", "gumbel_softmax"):
        logged = {key.removeprefix(f"gradient/{label}/") for key in metrics if key.startswith(f"gradient/{label}/")}
        assert logged == {
            *METRICS,
            *(f"encoder/{name}" for name in METRICS),
            "evaluations",
            "seconds",
            "relative_error_100",
        }
    assert all(math.isfinite(value) for value in metrics.values())
    assert (
        metrics["gradient/own/relative_bias"] == metrics["gradient/gumbel_softmax/relative_bias"]
    )  # same τ, same noise


def test_diagnostics_are_due_after_the_first_every_second_and_the_last_epoch(tiny_run: Make) -> None:
    config = tiny_run(training=TrainingConfig(epochs=7))
    diagnostics = Diagnostics(config, SETTINGS, REGISTRY)
    assert [epoch for epoch in range(1, 8) if diagnostics.due(epoch)] == [1, 2, 4, 6, 7]


def test_the_same_point_gives_the_same_numbers_whenever_it_is_measured(tiny_run: Make) -> None:
    config = tiny_run(data=tiny_run().data.model_copy(update={"binarization": "resampled"}))
    state = start(config, REGISTRY, torch.device("cpu"))
    diagnostics = Diagnostics(config, SETTINGS, REGISTRY)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again = (diagnostics.metrics(state) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    timeless = [{key: value for key, value in m.items() if "seconds" not in key} for m in (first, again)]
    assert timeless[0] == timeless[1]
    assert all(parameter.grad is None for parameter in state.task.parameters())


def test_unbiased_estimators_measure_as_unbiased_and_exact_as_exact(tiny_run: Make) -> None:
    config = tiny_run("exact")
    state = start(config, REGISTRY, torch.device("cpu"))
    basket = (
        BasketConfig(name="rloo"),
        BasketConfig(name="straight_through", params={"tau": 0.5}, label="straight_through"),
    )
    settings = DiagnosticsConfig(resamples=512, probe=20, basket=basket)
    found = Diagnostics(config, settings, REGISTRY).metrics(state)
    assert found["gradient/own/relative_bias"] < 1e-3  # float32 costs
    assert found["gradient/own/encoder/relative_bias"] < 1e-3
    assert found["gradient/own/variance"] == 0
    assert found["gradient/rloo/p_value"] > 1e-3
    assert found["gradient/rloo/encoder/p_value"] > 1e-3
    assert found["gradient/straight_through/p_value"] < 1e-3


def test_the_encoders_gradient_is_that_of_the_mean_cost(tiny_run: Make) -> None:
    config = tiny_run()
    state = start(config, REGISTRY, torch.device("cpu"))
    vae, x_BD = state.task.network(), state.splits.train[:5]
    logits = vae.encode(x_BD)
    cost_B = build("exact")(logits, vae.reconstruction_cost(x_BD)).cost_B
    on_logits = torch.autograd.grad(cost_B.sum(), logits, retain_graph=True)[0]
    expected = torch.autograd.grad(cost_B.mean(), list(vae.encoder.parameters()), retain_graph=True)
    found = to_parameters(torch.stack([on_logits, 2 * on_logits]), logits, vae.encoder)
    flat = torch.cat([gradient.flatten() for gradient in expected])
    torch.testing.assert_close(found, torch.stack([flat, 2 * flat]), rtol=1e-3, atol=1e-4)


@pytest.mark.slow  # 20 s of draws
def test_beyond_max_codes_the_reference_is_an_average(tiny_run: Make) -> None:
    config = tiny_run("rloo", diagnostics=SETTINGS.model_copy(update={"max_codes": 10, "basket": ()}))
    metrics = run(config.model_copy(update={"training": TrainingConfig(epochs=1, batch_size=50)}))[0]
    assert metrics["gradient/own/p_value"] > 1e-3
    assert 0 < metrics["gradient/truth_error"] < 0.1


def test_diagnostics_are_part_of_the_key_only_where_there_are_some(tiny_run: Make) -> None:
    plain = tiny_run()
    assert "diagnostics" not in plain.canonical
    assert plain.model_copy(update={"diagnostics": SETTINGS}).key != plain.key
    again = RunConfig.model_validate_json(plain.model_copy(update={"diagnostics": SETTINGS}).to_json())
    assert again.diagnostics == SETTINGS


HEAD = "estimators: [reinforce]\nseeds: [0]\nmodel: {n_latents: 2, n_categories: 3}\n"


def test_the_diagnostics_section_applies_to_all_runs_of_a_grid(tmp_path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(HEAD + "diagnostics: {every: 5 epochs, basket: [reinforce, {name: rloo, n_samples: [2, 4]}]}")
    [config] = load_grid(path, REGISTRY).runs
    assert config.diagnostics is not None
    assert config.diagnostics.every == 5
    assert config.diagnostics.metric_names == ("reinforce", "rloo-n_samples-2", "rloo")
    assert config.flat()["diagnostics.basket"] == "reinforce, rloo(n_samples=2), rloo"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{every: 5 steps}", "4:22: diagnostics.every: expected a whole number, got '5 steps'."),
        ("{resamples: [64, 128]}", "4:26: diagnostics.resamples: expected one value for all runs, got [64, 128]."),
        ("{resamples: 8}", "4:26: diagnostics.resamples: expected a value >= 64, got 8."),
        ("{prob: 8}", "4:15: diagnostics.prob: expected a key of diagnostics, got 'prob'. Did you mean 'probe'?"),
        ("{basket: []}", "4:23: diagnostics.basket: expected a list of at least one estimator, got []."),
        (
            "{basket: [rlo]}",
            f"4:24: diagnostics.basket[0]: expected one of {len(REGISTRY)} names, got 'rlo'. Did you mean 'rloo'?",
        ),
        (
            "{basket: [{name: exact, max_codes: 8}]}",
            "4:49: diagnostics.basket[0].max_codes: expected n_categories^n_latents <= max_codes = 8, got 3^2 = 9. "
            "Use fewer latents or classes, or raise max_codes.",
        ),
        (
            "{basket: [{name: gumbel_softmax, tau: 0}]}",
            "4:52: diagnostics.basket[0].tau: expected tau > 0, got 0.0.",
        ),
        (
            "{basket: [rloo, rloo]}",
            "4:30: diagnostics.basket[1]: expected each run once, got 'rloo' again (first: diagnostics.basket[0] on "
            "line 4).",
        ),
    ],
)
def test_bad_sections_are_one_line(section: str, problem: str, tmp_path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(HEAD + f"diagnostics: {section}\n")
    with pytest.raises(GridError) as error:
        load_grid(path, REGISTRY)
    assert list(error.value.messages) == [f"{path}:{problem}"]


def test_validation_every_and_diagnostics_are_independent(tiny_run: Make) -> None:
    config = tiny_run(
        diagnostics=SETTINGS.model_copy(update={"basket": ()}),
        model=ModelConfig(n_latents=2, n_categories=3, hidden=(8,)),
        training=TrainingConfig(epochs=3, batch_size=100),
        evaluation=EvaluationConfig(validation_every=3, bound_samples=0, n_images=0),
    )
    metrics = run(config)[:3]
    assert ["val/loss" in m for m in metrics] == [False, False, True]
    assert ["gradient/own/cosine" in m for m in metrics] == [True, True, True]


def test_estimators_of_the_basket_that_the_task_has_no_use_for_are_not_measured(tmp_path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        "name: g\ntask: mnist_sum\ndata: {train_size: 60}\ntraining: {epochs: 1, batch_size: 15}\nestimators: [rloo]\n"
        "seeds: [0]\ndiagnostics: {resamples: 64, probe: 5, basket: [gumbel_softmax, straight_through, carms]}\n"
    )
    (config,) = load_grid(path, REGISTRY).runs
    metrics = run(config)[0]
    measured = {name.split("/")[1] for name in metrics if name.startswith("gradient/")}
    assert measured == {"own", "carms", "truth_error"}
