"""Runs of tasks: they train, resume with the same bits, diverge, skip, compile and are measured as runs of the VAE."""

import random
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from bad_slope import BadSlope
from cut_runs import cut_after, without_times
from small_tasks import SMALL_REGISTRY, HardGate, ModeGate, Targets, run_of
from torch import Tensor, nn

from estimators import REGISTRY
from harness.config import RunConfig, TrainingConfig
from harness.events import Diverged, EpochDone, Event, Finished, Latents, Picture, Skipped, Started
from harness.measures import Measure
from harness.models import load_model
from harness.plugins.registry import Registry
from harness.tasks import Splits
from harness.tasks.draws import CodeDraws
from harness.train import train
from harness.training import checkpoint, data, evaluate
from harness.training.compiled import CompileError, _trial
from harness.training.run_controls import RunControls
from harness.training.state import State, start

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler on the CPU"
)


def trained(run: RunConfig, registry: Registry = SMALL_REGISTRY) -> list[Event]:
    return list(train(run, registry))


def end_of(run: RunConfig, registry: Registry = SMALL_REGISTRY) -> dict[str, float]:
    end = trained(run, registry)[-1]
    assert isinstance(end, Finished), end
    return end.metrics


def started(run: RunConfig, registry: Registry = SMALL_REGISTRY) -> State:
    return start(run, registry, CPU)


TIMES = {"time/step_s_median", "time/step_s_p90", "time/images_per_s"}
USE = {"latent/perplexity", "latent/dead_classes", "latent/entropy"}


def test_a_task_has_its_terms_and_measures_and_no_pictures() -> None:
    first, *epochs, latents, end = trained(run_of("hard_gate", "gumbel_softmax"))
    assert isinstance(first, Started)
    assert [type(event) for event in epochs] == [EpochDone] * 3
    assert isinstance(latents, Latents)
    assert isinstance(end, Finished)
    assert isinstance(epochs[0], EpochDone)
    terms = {f"{when}/{name}" for when in ("train", "val") for name in ("loss", "cost", "balance")}
    measures = {"accuracy", "busiest"}
    assert epochs[0].metrics.keys() == {
        *terms, *TIMES, *USE, *(f"val/{name}" for name in measures), "tau", "val/soft_hard_gap",
    }  # fmt: skip
    assert end.metrics.keys() == {
        *(f"test/{name}" for name in ("loss", "cost", "balance", "relaxed_loss", *measures)), *TIMES, *USE,
        "time/total_s", "memory/peak_mb", "cost/n_cost_evals",
    }  # fmt: skip
    assert (epochs[0].step, end.step) == (4, 12)
    assert not any(isinstance(event, Picture) for event in epochs)


@pytest.mark.parametrize("estimator", ["rloo", "reinmax"])
def test_a_task_learns(estimator: str) -> None:
    run = run_of("hard_gate", estimator, "training: {epochs: 60, batch_size: 16, lr: 0.05}\n")
    assert end_of(run)["test/accuracy"] >= 0.75
    run = run_of("targets", estimator, "training: {epochs: 60, batch_size: 16, lr: 0.1}\n")
    assert abs(end_of(run)["test/gap"]) < 0.01


@pytest.mark.parametrize(
    ("task", "estimator"),
    [
        ("hard_gate", "rloo"),
        ("{name: hard_gate, balance: 0.5, hidden: [3]}", "nvil"),
        ("targets", "reinforce_ema"),
        ("two_layers", "nvil"),
        ("two_layers", "reinforce_ema"),
        ("two_layers", "gumbel_softmax"),
    ],
)
def test_a_run_cut_after_any_epoch_has_the_numbers_of_a_whole_one(task: str, estimator: str) -> None:
    run = run_of(task, estimator)
    whole = without_times(trained(run))
    for epoch in (1, 2, 3):
        first, saved = cut_after(run, epoch, registry=SMALL_REGISTRY)
        torch.manual_seed(12345 + epoch)
        rest = list(train(run, SMALL_REGISTRY, saved))
        assert sum(isinstance(event, EpochDone) for event in rest) == 3 - epoch
        assert without_times(first) + without_times(rest) == whole


def test_a_checkpoint_has_the_state_of_every_layer() -> None:
    run = run_of("two_layers", "nvil")
    _, saved = cut_after(run, 2, registry=SMALL_REGISTRY)
    state = started(run)
    assert checkpoint.restore(run, state, saved)
    assert list(state.estimators) == ["outer", "inner"]
    fresh = started(run)
    for layer, estimator in state.estimators.items():
        values = zip(estimator.state_dict().values(), fresh.estimators[layer].state_dict().values(), strict=True)
        assert all(not torch.equal(ours, new) for ours, new in values), layer
    outer, inner = (list(estimator.parameters()) for estimator in state.estimators.values())
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(outer, inner, strict=True))


@pytest.mark.parametrize("task", ["hard_gate", "targets"])
def test_a_gradient_of_nan_in_a_matrix_without_biases_ends_the_run_at_its_own_step(task: str) -> None:
    registry = Registry({**REGISTRY, "bad_slope": BadSlope}, SMALL_REGISTRY.tasks)
    *_, end = trained(run_of(task, "bad_slope", registry=registry), registry)
    assert end == Diverged(3, "bad_slope: gradient is nan at step 3 (epoch 1)")


@pytest.mark.parametrize(
    ("task", "estimator", "reason"),
    [
        ("one_hot_gate", "gumbel_softmax", "the cost needs one-hot codes, and the estimator evaluates it on soft ones"),
        ("one_hot_gate", "rebar", "the cost needs one-hot codes, and the estimator evaluates it on soft ones"),
        (
            "black_box_gate",
            "straight_through",
            "the cost has no derivative in the code, and the estimator needs one",
        ),
        ("hard_gate", "vimco", "the estimator trains an importance-weighted bound, and the task has none"),
        ("hard_gate", "igr", "the estimator takes another number of logits for each latent than its classes"),
    ],
)
def test_an_estimator_that_cannot_train_a_task_is_skipped_with_the_reason(
    task: str, estimator: str, reason: str
) -> None:
    first, last = trained(run_of(task, estimator))
    assert isinstance(first, Started)
    assert last == Skipped(f"{estimator} on {task}: {reason}")


@pytest.mark.parametrize(("task", "estimator"), [("one_hot_gate", "straight_through"), ("black_box_gate", "rloo")])
def test_an_estimator_that_can_is_not_skipped(task: str, estimator: str) -> None:
    assert "test/accuracy" in end_of(run_of(task, estimator))


def losses(events: list[Event]) -> list[float]:
    return [event.metrics["train/loss"] for event in events if isinstance(event, EpochDone)]


def test_a_smaller_batch_of_tuples_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def noted(loss: Callable[[Any], Any], **_: Any) -> Callable[[Any], Any]:
        return lambda batch: (sizes.append(tuple(map(len, batch))), loss(batch))[1]

    monkeypatch.setattr(torch, "compile", noted)
    more = "training: {epochs: 2, batch_size: 12, lr: 0.05, compile: %s}\n"
    events = trained(run_of("{name: hard_gate, balance: 1}", "reinmax", more % "on"))
    assert losses(events) == losses(trained(run_of("{name: hard_gate, balance: 1}", "reinmax", more % "off")))
    assert set(sizes) == {(12, 12)}
    assert len(sizes) == 3 + 2 * 2  # the trial, and two whole batches of each epoch


@pytest.mark.slow  # compiling takes 10 s, and a minute on a busy machine
@needs_compiler
def test_a_compiled_task_has_the_numbers_of_a_plain_one() -> None:
    """Batches are tuples, and the last one is smaller."""
    more = "training: {epochs: 2, batch_size: 12, lr: 0.05, compile: %s}\n"
    fast, plain = (trained(run_of("hard_gate", "reinmax", more % how)) for how in ("on", "off"))
    assert losses(fast) == pytest.approx(losses(plain), rel=1e-4)
    assert isinstance(fast[-1], Finished)
    assert fast[-1].metrics["compiled"] == 1.0


def test_an_estimator_with_parameters_in_any_layer_is_not_compiled() -> None:
    run = run_of("two_layers", "nvil")
    run = run.model_copy(update={"training": TrainingConfig(epochs=1, batch_size=10, compile="on")})
    with pytest.raises(CompileError, match="expected an estimator without parameters of its own, got nvil"):
        trained(run)


def test_a_learned_temperature_is_one_for_both_layers() -> None:
    run = run_of("two_layers", "gumbel_softmax", "schedules: [{kind: learned, initial: 0.8, lr: 0.1}]\n")
    state = started(run)
    assert state.learned_tau is not None
    epochs = [event.metrics for event in trained(run) if isinstance(event, EpochDone)]
    assert len({metrics["tau"] for metrics in epochs}) == 3
    state.set_temperature("tau", 0.25)
    assert [estimator.tau for estimator in state.estimators.values()] == [0.25, 0.25]
    first, saved = cut_after(run, 2, registry=SMALL_REGISTRY)
    rest = list(train(run, SMALL_REGISTRY, saved))
    assert without_times(first) + without_times(rest) == without_times(trained(run))


class Built(HardGate):
    """A gate whose experts are made for the data, after the gate."""

    name = "built"

    def build(self, splits: Splits, n_outputs: Any) -> None:
        self.experts = nn.Linear(splits.train[0].shape[1], 2 * n_outputs["z"])


BUILT = Registry(REGISTRY, {**SMALL_REGISTRY.tasks, "built": Built})


def test_the_seed_alone_decides_the_initial_weights_of_constructor_and_build() -> None:
    """`nvil` and `relax` draw weights of their own between the two."""
    found = [
        [parameter.detach() for parameter in started(run_of("built", name, registry=BUILT), BUILT).task.parameters()]
        for name in ("rloo", "nvil", "relax")
    ]
    for others in found[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0], others, strict=True))
    other = run_of("built", registry=BUILT).model_copy(update={"seed": 1})
    weights = zip(found[0], started(other, BUILT).task.parameters(), strict=True)
    assert not any(torch.equal(ours, theirs) for ours, theirs in weights)
    gate, experts = (parameter.flatten()[:8] for parameter in (found[0][0], found[0][1]))
    assert not torch.allclose(gate, experts)  # of one stream: they do not repeat each other


def test_data_that_a_task_draws_are_the_same_for_all_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("hard_gate")
    found = []
    for seed in (0, 1):
        monkeypatch.setattr(data, "_newest", {})
        found.append(started(run.model_copy(update={"seed": seed})).splits)
    first, second = found
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first.train, second.train, strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first.test, second.test, strict=True))


def test_drawing_data_changes_no_number_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("hard_gate", "gumbel_softmax")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    monkeypatch.setattr(data, "_newest", {})
    started(run)
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(data, "_newest", {})
    cold = without_times(trained(run))
    calls: list[object] = []
    monkeypatch.setattr(HardGate, "data", lambda *_: calls.append(1))
    assert without_times(trained(run)) == cold
    assert calls == []


def test_other_parameters_have_other_data() -> None:
    def n_train(steps: int) -> int:
        return started(run_of(f"{{name: targets, steps: {steps}}}")).splits.n_train

    assert [n_train(4), n_train(5), n_train(4)] == [40, 50, 40]


def test_latents_of_layers_of_different_sizes_are_reported_together() -> None:
    *_, latents, end = trained(run_of("two_layers"))
    assert isinstance(latents, Latents)
    assert isinstance(end, Finished)
    assert [len(shares) for shares in latents.usage] == [3, 3, 5]
    assert [sum(shares) for shares in latents.usage] == pytest.approx([1, 1, 1], abs=1e-5)
    assert end.metrics["latent/entropy"] == pytest.approx(sum(latents.entropy))
    assert end.metrics["latent/perplexity"] == pytest.approx(sum(latents.perplexity) / 3)
    assert 0 <= latents.kl[2] <= torch.tensor(5.0).log()
    assert latents.dead_classes == [0, 0, 0]


def of_test(task: HardGate, batch: Any, z_SBK: Tensor) -> dict[str, float]:
    """The measures by their definition, one code at a time."""
    chosen_SB = z_SBK.argmax(-1)
    logits_BK2 = task.class_logits(batch)
    right = [[logits_BK2[b, k].argmax() == batch[1][b] for b, k in enumerate(row)] for row in chosen_SB.tolist()]
    shares = [float(torch.bincount(row, minlength=3).max()) / len(row) for row in chosen_SB]
    return {
        "test/accuracy": float(torch.tensor(right).float().mean()),
        "test/busiest": sum(shares) / len(shares),
    }


@pytest.mark.parametrize("n_samples", [1, 5])
def test_measures_are_means_over_the_samples_of_the_test(n_samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("hard_gate", more=f"evaluation: {{test_samples: {n_samples}}}\n")
    state, drawn = started(run), []
    original = CodeDraws.__call__
    monkeypatch.setattr(CodeDraws, "__call__", lambda *args, **more: drawn.append(original(*args, **more)) or drawn[-1])
    metrics, _ = evaluate.test_metrics(run, state)
    assert isinstance(state.task, HardGate)
    [z_SBLK] = drawn
    assert z_SBLK.shape == (n_samples, 16, 1, 3)
    expected = of_test(state.task, state.splits.test, z_SBLK[:, :, 0])
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_measures_on_the_mode_are_of_the_likeliest_code_and_the_same_however_many_samples() -> None:
    found = []
    for n_samples in (1, 7):
        run = run_of("mode_gate", more=f"evaluation: {{test_samples: {n_samples}}}\n")
        state = started(run)
        metrics, _ = evaluate.test_metrics(run, state)
        assert isinstance(state.task, ModeGate)
        with torch.no_grad():
            mode = torch.nn.functional.one_hot(state.task.logits(state.splits.test)[:, 0].argmax(-1), 3)
        expected = of_test(state.task, state.splits.test, mode[None])
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
        found.append(metrics)
    assert found[0]["test/accuracy"] == found[1]["test/accuracy"]
    assert found[0]["test/cost"] != found[1]["test/cost"]


def test_a_scalar_term_counts_for_every_example_of_its_batch() -> None:
    run = run_of("{name: hard_gate, balance: 2}", more="evaluation: {batch_size: 10}\n")  # batches of 10 and 6
    state = started(run)
    metrics, _ = evaluate.test_metrics(run, state)
    assert isinstance(state.task, HardGate)
    with torch.no_grad():
        laws = state.task.logits(state.splits.test).softmax(-1)[:, 0]
    of_batches = [2 * (3 * float(part.mean(0).square().sum()) - 1) for part in laws.split(10)]
    assert metrics["test/balance"] == pytest.approx((10 * of_batches[0] + 6 * of_batches[1]) / 16, abs=1e-6)
    assert metrics["test/loss"] == pytest.approx(metrics["test/cost"] + metrics["test/balance"])


class Sometimes(HardGate):
    """A gate without a penalty where its weight is 0."""

    name = "sometimes"

    def penalty(self, batch: Any, logits_BLK: Tensor) -> Tensor | None:
        return super().penalty(batch, logits_BLK) if self.balance else None


def test_a_penalty_may_be_left_out_for_some_parameters() -> None:
    registry = Registry(REGISTRY, {**SMALL_REGISTRY.tasks, "sometimes": Sometimes})
    assert end_of(run_of("{name: sometimes, balance: 1}", registry=registry), registry)["test/balance"] > 0
    without = end_of(run_of("sometimes", registry=registry), registry)
    assert without["test/balance"] == 0
    assert without["test/loss"] == without["test/cost"]


def test_validation_codes_may_be_relaxed_while_measures_stay_one_hot() -> None:
    hard, soft = (
        [e.metrics for e in trained(run_of("hard_gate", "gumbel_softmax", more)) if isinstance(e, EpochDone)]
        for more in ("", "evaluation: {validation_codes: relaxed}\n")
    )
    assert [m["train/loss"] for m in hard] == [m["train/loss"] for m in soft]
    assert [m["val/loss"] for m in hard] != [m["val/loss"] for m in soft]
    assert all(round(12 * m["val/accuracy"]) == pytest.approx(12 * m["val/accuracy"]) for m in soft)


@pytest.mark.parametrize(("task", "estimator"), [("hard_gate", "gumbel_softmax"), ("two_layers", "nvil")])
def test_a_loaded_task_has_the_test_metrics_of_its_run(task: str, estimator: str, tmp_path: Any) -> None:
    run = run_of(task, estimator)
    *_, weights, end = train(run, SMALL_REGISTRY, controls=RunControls(keeps_model=True))
    path = tmp_path / "weights.pt"
    path.write_bytes(weights.content)
    model, loaded = load_model(path, run, SMALL_REGISTRY)
    assert not model.training
    state = started(run)
    state.task, state.estimators = model, loaded if isinstance(loaded, dict) else {"z": loaded}
    again, _ = evaluate.test_metrics(run, state)
    assert again == {name: end.metrics[name] for name in again}


@pytest.mark.parametrize("task", ["hard_gate", "two_layers", "targets"])
def test_the_same_run_has_the_same_numbers(task: str) -> None:
    run = run_of(task, "gumbel_softmax")
    first = without_times(trained(run))
    torch.rand(11)
    assert without_times(trained(run)) == first
    assert without_times(trained(run.model_copy(update={"seed": 1}))) != first


def test_a_task_without_data_has_as_many_updates_as_it_says() -> None:
    events = trained(run_of("{name: targets, steps: 7}"))
    assert [event.step for event in events if isinstance(event, EpochDone)] == [7, 14, 21]
    state = started(run_of("{name: targets, steps: 7}"))
    assert isinstance(state.task, Targets)
    assert state.splits.train_batch(torch.tensor([25, 11, 40])).tolist() == [0, 1, 2]


class FrozenExperts(HardGate):
    """A gate over experts that are not trained."""

    name = "frozen_experts"

    def __init__(self, *, n_experts: int = 3) -> None:
        super().__init__(n_experts=n_experts)
        self.experts.requires_grad_(False)


class NoisyProblems(HardGate):
    """A gate with dropout and running means, which draws a code for its diagnostics."""

    name = "noisy_problems"

    def __init__(self, *, n_experts: int = 3) -> None:
        super().__init__(n_experts=n_experts)
        self.gate = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, n_experts))

    def gradient_problems(self, batch: Any, estimators: Any) -> Any:
        torch.rand(3)
        return super().gradient_problems(batch, estimators)


class Taught(HardGate):
    """A gate on points that its own initial weights move, which a whole check refuses."""

    name = "taught"

    def data(self, config: object) -> Splits:
        splits = super().data(config)
        moved = (splits.train[0] + self.experts.bias[0].item(), splits.train[1])
        return Splits(train=moved, validation=splits.validation, test=splits.test)


class Unmeasured(HardGate):
    """A gate whose first measure is missing."""

    name = "unmeasured"
    measures = (Measure("absent", better="higher"), *HardGate.measures)


class Changing(HardGate):
    """A gate that changes its batch in evaluations."""

    name = "changing"

    def measure(self, batch: Any, z_BLK: Tensor) -> dict[str, Tensor]:
        batch[0].mul_(2)
        return super().measure(batch, z_BLK)


class ByNumpy(HardGate):
    """A gate on points that numpy and Python draw."""

    name = "by_numpy"

    def data(self, config: object) -> Splits:
        splits, x_ND = super().data(config), torch.tensor(np.random.randn(32, 4)).float()
        train = x_ND + random.random(), splits.train[1]  # noqa: S311
        return Splits(train=train, validation=splits.validation, test=splits.test)


OWN_TASKS = (ByNumpy, FrozenExperts, NoisyProblems, Taught, Unmeasured, Changing)
OWN_REGISTRY = Registry(REGISTRY, {cls.name: cls for cls in OWN_TASKS})
DIAGNOSED = "diagnostics: {resamples: 64, probe: 4}\n"


def test_frozen_parameters_stay_as_they_were() -> None:
    run = run_of("frozen_experts", "rloo", DIAGNOSED, OWN_REGISTRY)
    state = started(run, OWN_REGISTRY)
    frozen = [one for one in state.task.parameters() if not one.requires_grad]
    assert len(frozen) == 2
    assert not {id(one) for one in frozen} & {id(one) for one in state.trained_by_loss}
    assert sum(one.numel() for one in state.trained_by_loss) == 4 * 3
    end = end_of(run, OWN_REGISTRY)
    assert end["test/loss"] > 0


def test_diagnostics_change_neither_noise_nor_running_means() -> None:
    rarely = "evaluation: {validation_every: 3}\n"
    plain, diagnosed = (
        end_of(run_of("noisy_problems", "rloo", rarely + more, OWN_REGISTRY), OWN_REGISTRY) for more in ("", DIAGNOSED)
    )
    kept = [{name: value for name, value in end.items() if name.startswith("test/")} for end in (plain, diagnosed)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("task", ["taught", "by_numpy"])
def test_data_are_the_same_for_every_seed_and_whichever_run_came_first(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(task, registry=OWN_REGISTRY)
    found = []
    for seed in (0, 1):
        monkeypatch.setattr(data, "_newest", {})
        found.append(started(run.model_copy(update={"seed": seed}), OWN_REGISTRY).splits.train[0])
    assert torch.equal(*found)


def test_a_run_without_the_measure_that_ranks_it_fails() -> None:
    with pytest.raises(ValueError, match="unmeasured: expected the measure absent in every evaluation, got loss, cost"):
        trained(run_of("unmeasured", registry=OWN_REGISTRY), OWN_REGISTRY)


def test_an_evaluation_that_changes_the_data_ends_the_run() -> None:
    with pytest.raises(ValueError, match="leaves its batch as it is"):
        trained(run_of("changing", registry=OWN_REGISTRY), OWN_REGISTRY)


def test_the_trial_of_compiling_leaves_running_means_alone() -> None:
    state = started(run_of("noisy_problems", registry=OWN_REGISTRY), OWN_REGISTRY)
    before = [one.clone() for one in state.task.buffers()]
    batch = state.splits.train_batch(torch.arange(10))
    _trial(lambda batch: state.task.loss(batch, state.estimators), state.task, state.estimators, batch, seed=0)
    assert all(map(torch.equal, before, state.task.buffers()))
