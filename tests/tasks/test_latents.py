"""The use of latents equals loops over single numbers, and measuring it changes nothing."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from estimators import REGISTRY, Cost, Estimate, Estimator
from harness import train
from harness.config import EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from harness.events import EpochDone, Finished, Latents
from harness.tasks.latents import LatentSums, LatentUse, latent_use
from harness.tasks.splits import split_batch
from harness.training import evaluate, seeding
from harness.training.state import State, start

Make = Callable[..., RunConfig]


def naive(logits_BLK: Tensor) -> dict[str, list]:
    """What `latents.json` says, by the definitions of its fields, one number at a time."""
    n_images, n_latents, n_categories = logits_BLK.shape
    found: dict[str, list] = {name: [] for name in ("kl", "perplexity", "entropy", "dead_classes", "usage")}
    for latent in range(n_latents):
        rows = [[math.exp(x) for x in logits_BLK[i, latent].tolist()] for i in range(n_images)]
        laws = [[x / sum(row) for x in row] for row in rows]
        usage = [sum(law[k] for law in laws) / n_images for k in range(n_categories)]
        found["kl"].append(sum(p * math.log(p * n_categories) for law in laws for p in law) / n_images)
        found["entropy"].append(-sum(p * math.log(p) for law in laws for p in law) / n_images)
        found["perplexity"].append(math.exp(-sum(share * math.log(share) for share in usage)))
        found["dead_classes"].append(sum(share < 0.01 / n_categories for share in usage))
        found["usage"].append(usage)
    return found


@pytest.fixture
def logits_BLK() -> Tensor:
    """40 posteriors of 3 variables; 2 classes of the first and 1 of the last are dead."""
    logits = torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0))
    logits[:, 0, 1:3] -= 9
    logits[:, 2, 4] -= 12
    return logits


def use_of(*batches: Tensor) -> LatentUse:
    """The use of the latents of one layer, from batches of logits."""
    sums = LatentSums()
    for logits in batches:
        sums.add(logits)
    return latent_use([sums])


def test_every_value_is_that_of_the_naive_loop(logits_BLK: Tensor) -> None:
    event, wanted = use_of(*logits_BLK.split(7)).event(), naive(logits_BLK)
    for name in ("kl", "perplexity", "entropy"):
        assert getattr(event, name) == pytest.approx(wanted[name], rel=1e-5), name
    assert event.dead_classes == wanted["dead_classes"] == [2, 0, 1]
    assert torch.tensor(event.usage).allclose(torch.tensor(wanted["usage"]), atol=1e-6)
    assert all(share == round(share, 6) for shares in event.usage for share in shares)


def test_metrics_sum_entropies_and_dead_classes_and_average_perplexities(logits_BLK: Tensor) -> None:
    metrics, wanted = use_of(logits_BLK).metrics(), naive(logits_BLK)
    assert metrics == {
        "latent/perplexity": pytest.approx(sum(wanted["perplexity"]) / 3, rel=1e-5),
        "latent/dead_classes": 3.0,
        "latent/entropy": pytest.approx(sum(wanted["entropy"]), rel=1e-5),
    }


def test_the_extremes_are_exact() -> None:
    uniform = use_of(torch.zeros(9, 2, 4)).event()
    assert (uniform.kl, uniform.dead_classes, uniform.usage) == ([0, 0], [0, 0], [[0.25] * 4] * 2)
    assert uniform.perplexity == pytest.approx([4, 4])
    one_class = use_of(torch.tensor([1e4, 0, 0, 0]).repeat(9, 2, 1)).event()
    assert (one_class.entropy, one_class.perplexity, one_class.dead_classes) == ([0, 0], [1, 1], [3, 3])
    assert one_class.kl == pytest.approx([math.log(4)] * 2)


def started(run: RunConfig) -> State:
    """The state of a run before its first update, as after epoch 3."""
    state = start(run, REGISTRY, torch.device("cpu"))
    state.epoch = 3
    return state


def mean_terms(state: State, batch_size: int, *, own: bool) -> tuple[float, float]:
    """Mean terms on the validation images, batch by batch: with the estimator's own codes, or one-hot ones."""
    batches, total = split_batch(state.splits.split("validation"), batch_size), torch.zeros(2, dtype=torch.float64)
    draw = evaluate.CodeDraws(state.estimators)
    for batch in batches:
        terms = state.task.loss(batch, state.estimators).terms if own else state.task.evaluate(batch, draw)
        total += torch.stack([term_B.sum() for term_B in terms.values()]).double()
    bce, kl = (total / sum(map(len, batches))).tolist()
    return bce, kl


@pytest.mark.parametrize("name", ["gumbel_softmax", "igr", "gaussian_softmax", "decoupled_st_gs", "rloo"])
def test_validation_uses_the_distribution_of_the_estimators_own_codes(tiny_run: Make, name: str) -> None:
    run = tiny_run(name, evaluation=EvaluationConfig(batch_size=130))
    state = started(run)
    metrics = evaluate.validation_metrics(run, state)
    with torch.no_grad():
        logits_BLK = state.estimator.class_logits(state.task.logits(state.splits.split("validation")))
    wanted = naive(logits_BLK.double())
    assert metrics["latent/perplexity"] == pytest.approx(sum(wanted["perplexity"]) / 3, rel=1e-4)
    assert metrics["latent/entropy"] == pytest.approx(sum(wanted["entropy"]), rel=1e-4)
    assert metrics["val/kl"] == pytest.approx(3 * math.log(4) - metrics["latent/entropy"], abs=1e-4)
    assert ("val/soft_hard_gap" in metrics) is state.estimator.relaxes


class Hardened(Estimator):
    """Says that it relaxes, but evaluates the one-hot code of the likeliest class: its loss is known."""

    name, relaxes = "hardened", True

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        code = torch.nn.functional.one_hot(logits_BLK.argmax(-1), logits_BLK.shape[-1]).to(logits_BLK.dtype)
        torch.rand(7)
        return Estimate(cost(code.unsqueeze(0))[0])


@pytest.mark.parametrize("codes", ["one_hot", "relaxed"])
def test_the_gap_is_the_one_hot_loss_minus_the_loss_of_the_estimators_codes(tiny_run: Make, codes: str) -> None:
    run = tiny_run(evaluation=EvaluationConfig(validation_codes=codes, batch_size=130))
    state = started(run)
    state.estimators = {"z": Hardened()}
    metrics = evaluate.validation_metrics(run, state)
    stream = "evaluation" if codes == "one_hot" else "gap"
    with torch.no_grad(), seeding.seeded(run.seed, stream, 3, device=torch.device("cpu")):
        hard = sum(mean_terms(state, 130, own=False))
    with torch.no_grad():
        soft = sum(mean_terms(state, 130, own=True))
    assert metrics["val/soft_hard_gap"] == pytest.approx(hard - soft, abs=1e-9)
    assert metrics["val/loss"] == (hard if codes == "one_hot" else soft)


@pytest.mark.parametrize("name", ["gumbel_softmax", "straight_through"])
@pytest.mark.parametrize("codes", ["one_hot", "relaxed"])
def test_neither_latents_nor_the_gap_alter_the_validation_loss(tiny_run: Make, name: str, codes: str) -> None:
    """Batch by batch, each encoded when it is its turn, with nothing else drawn: the loss before there were latents."""
    run = tiny_run(name, evaluation=EvaluationConfig(validation_codes=codes, batch_size=130))
    state = started(run)
    before = torch.get_rng_state()
    metrics = evaluate.validation_metrics(run, state)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad(), seeding.seeded(run.seed, "evaluation", 3, device=torch.device("cpu")):
        means = mean_terms(state, 130, own=codes == "relaxed")
    assert [metrics["val/bce"], metrics["val/kl"]] == pytest.approx(means, rel=1e-12)


def test_measuring_latents_does_not_change_training(tiny_run: Make) -> None:
    """More expensive and more frequent validation leaves the training and test losses unchanged."""
    found = []
    for every in (1, 4):
        settings = EvaluationConfig(bound_samples=2, n_images=2 if every == 1 else 0, validation_every=every)
        run = tiny_run("gumbel_softmax", evaluation=settings, training=TrainingConfig(epochs=4, batch_size=50))
        events = list(train.train(run, REGISTRY))
        losses = [e.metrics["train/loss"] for e in events if isinstance(e, EpochDone)]
        ends = [e.metrics["test/neg_bound"] for e in events if isinstance(e, Finished)]
        found.append((losses, ends, [e for e in events if isinstance(e, Latents)]))
    assert found[0] == found[1]


def test_a_run_ends_with_the_latents_of_the_test_images(tiny_run: Make) -> None:
    model = ModelConfig(n_latents=4, n_categories=6, hidden=(16,))
    *_, latents, end = train.train(tiny_run(model=model), REGISTRY)
    assert isinstance(latents, Latents)
    assert isinstance(end, Finished)
    assert [len(latents.kl), len(latents.usage), len(latents.usage[0])] == [4, 4, 6]
    assert end.metrics["latent/entropy"] == pytest.approx(sum(latents.entropy))
    assert end.metrics["latent/perplexity"] == pytest.approx(sum(latents.perplexity) / 4)
    assert end.metrics["latent/dead_classes"] == sum(latents.dead_classes)
    assert end.metrics["test/kl"] == pytest.approx(sum(latents.kl), rel=1e-5)


@pytest.mark.parametrize(("name", "times"), [("straight_through", 1), ("gumbel_softmax", 2)])
def test_images_are_encoded_once_for_each_kind_of_codes(
    tiny_run: Make, monkeypatch: pytest.MonkeyPatch, name: str, times: int
) -> None:
    run = tiny_run(name, evaluation=EvaluationConfig(batch_size=130))
    state = started(run)
    n_encoded = 0
    encode = state.task.logits

    def counted(x_BD: Tensor) -> Tensor:
        nonlocal n_encoded
        n_encoded += len(x_BD)
        return encode(x_BD)

    monkeypatch.setattr(state.task, "logits", counted)
    evaluate.validation_metrics(run, state)
    assert n_encoded == times * len(state.splits.split("validation"))
