"""Published numbers beside measured ones: at the same epoch, with the interval of the difference, and as curves."""

import dataclasses
import re
from functools import cache

import numpy as np
import pytest
import scipy.stats
from reports_store import Planned, history, in_memory

from estimators import REGISTRY, parameters
from reports import statistics as st
from reports.page.blocks import Pictures, Tabular, Words
from reports.page.context import Context
from reports.sections import published, published_numbers

SHAPE = {"data.name": "mnist", "model.n_latents": 4, "model.n_categories": 8}
PROTOCOL = SHAPE | {
    "data.binarization": "none", "data.validation_fraction": 0.0, "model.hidden": [512, 256],
    "model.activation": "relu", "model.logits_activation": "identity", "training.batch_size": 100,
    "training.lr_schedule": "constant", "training.optimizer": "adam", "training.lr": 0.0005,
    "schedule.kind": "constant", "schedule.tau": 1.3, "estimator.n_samples": 1,
}  # fmt: skip
"""That of ReinMax at 8 classes × 4 latents."""


def reinmax(seeds=range(3), **more):
    params = PROTOCOL | more.pop("params", {})
    return [Planned("reinmax", "constant", seed, params=params, **more) for seed in seeds]


@cache
def short():
    """The context of three seeds of the published protocol for 20 epochs."""
    return Context(in_memory(reinmax(), epochs=20))


def rows(context, metric="train/loss"):
    return [row for row in published._rows(context) if row["source"].startswith("Raw") and row["metric"] == metric]


def test_a_short_run_meets_the_published_number_of_its_epoch():
    (row,) = rows(short())
    losses = [history(run, 20)[19]["train/loss"] for run in reinmax()]
    assert (row["epoch"], row["published"], row["published_sd"], row["published_n"]) == (20, 133.4, 0.6, 10)
    assert row["measured"] == pytest.approx(np.mean(losses))
    assert row["difference"] == pytest.approx(np.mean(losses) - 133.4)


def test_the_interval_of_the_difference_has_the_uncertainty_of_both_sides():
    (row,) = rows(short())
    losses = [history(run, 20)[19]["train/loss"] for run in reinmax()]
    spread = np.random.default_rng(0).normal(size=10)
    theirs = 133.4 + 0.6 * (spread - spread.mean()) / spread.std(ddof=1)
    expected = scipy.stats.ttest_ind(losses, theirs, equal_var=False).confidence_interval()
    assert (row["difference_low"], row["difference_high"]) == (
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
    text = published._table([row]).rows[0][4].text
    assert re.fullmatch(r"[+−]\d+\.\d\d \[[+−]\d+\.\d\d, [+−]\d+\.\d\d\]", text)


def test_two_seeds_have_no_interval():
    (row,) = rows(Context(in_memory(reinmax(seeds=range(2)), epochs=20)))
    assert np.isnan([row["difference_low"], row["difference_high"]]).all()
    assert "[" not in published._table([row]).rows[0][4].text


@pytest.mark.parametrize("known", [st.Sample(1.0, None, 10), st.Sample(1.0, 0.5, None), st.Sample(1.0, 0.5, 2)])
def test_welch_needs_a_deviation_and_three_values_on_either_side(known):
    good = st.Sample(2.0, 0.5, 3)
    assert st.welch_interval(good, st.Sample(1.0, 0.0, 5)).known
    assert not st.welch_interval(good, known).known
    assert not st.welch_interval(known, good).known


def test_welch_of_two_samples_without_spread_is_their_difference():
    assert st.welch_interval(st.Sample(2.0, 0.0, 3), st.Sample(1.0, 0.0, 3)) == st.Interval(1.0, 1.0)


def test_a_published_test_is_compared_with_runs_that_end_there():
    assert rows(short(), "test/neg_elbo") == []
    whole = in_memory(reinmax(), epochs=160)
    (row,) = rows(Context(whole), "test/neg_elbo")
    assert (row["epoch"], row["published"]) == (160, 127.27)
    assert row["measured"] == pytest.approx(whole.runs["test/neg_elbo"].mean())
    assert [row["epoch"] for row in rows(Context(whole))] == [20, 160]


def test_runs_of_the_published_protocol_differ_in_nothing():
    (row,) = rows(short())
    assert row["differs"] == ""


def test_what_differs_in_the_protocol_is_flagged():
    other = {"data.binarization": "threshold", "training.lr": 0.001, "schedule.tau": 1.0, "data.train_size": 5000,
             "training.batch_size": 128}  # fmt: skip
    (row,) = rows(Context(in_memory(reinmax(params=other), epochs=20)))
    assert row["differs"] == (
        "binarization none → threshold; train_size not set → 5000; batch_size 100 → 128; lr 0.0005 → 0.001; tau 1.3 → 1"
    )


def test_the_setting_of_the_published_protocol_stands_for_the_estimator_even_if_another_is_better():
    grid = [*reinmax(axis="lr=0.0005"), *reinmax(params={"training.lr": 0.001}, axis="lr=0.001", shift=-5.0)]
    (row,) = rows(Context(in_memory(grid, epochs=20)))
    assert row["setting"].endswith("lr=0.0005")
    grid = [run for lr in (0.002, 0.001) for run in reinmax(params={"training.lr": lr}, axis=f"lr={lr}", shift=lr)]
    (row,) = rows(Context(in_memory(grid, epochs=20)))
    assert row["setting"].endswith("lr=0.001")


def test_rows_that_match_no_run_stay_out():
    for params in ({"model.n_categories": 7}, {"data.name": "mnist-mini"}):
        context = Context(in_memory(reinmax(params=params), epochs=20))
        assert rows(context) == []
        (words,) = published.section(context).blocks
        assert isinstance(words, Words)
    assert rows(Context(in_memory(reinmax(), epochs=19))) == []


def test_logs_with_steps_alone_have_no_epoch_to_compare():
    runs = dataclasses.replace(in_memory(reinmax(), epochs=20), epochs_known=False)
    assert rows(Context(runs)) == []


def test_learning_curves_are_drawn_against_several_published_epochs():
    shown, how, _, pictures, how_curves = published.section(short()).blocks
    assert isinstance(shown, Tabular)
    assert shown.table.caption.startswith("Raw logs in the history of the code of Wang and Bui 2026")
    assert shown.table.rows[0][1].text == "train/loss, epoch 20"
    assert isinstance(pictures, Pictures)
    (panel,) = pictures.panels
    assert "reinmax is published at 133.4 for epoch 20" in panel.alt
    assert "reinmax is published at 125.1 for epoch 160" in panel.alt
    assert "ends here at" in panel.alt
    assert "Welch" in how.text
    assert "standard deviation" in how_curves.text


def test_a_source_with_one_epoch_has_no_curve(monkeypatch):
    only = tuple(one for one in published_numbers.numbers() if one.epoch == 20)
    for module in (published, published.published_curves):
        name = "published_numbers" if module is published else "numbers"
        monkeypatch.setattr(module, name, lambda: only)
    blocks = published.section(short()).blocks
    assert len(rows(short())) == 1
    assert not any(isinstance(block, Pictures) for block in blocks)


def test_the_seed_recipe_is_compared_at_both_of_its_epochs():
    params = {"training.lr": 0.001, "data.binarization": "none", "model.n_latents": 20, "model.n_categories": 10}
    grid = [Planned("gumbel_softmax", "exponential", seed, params=params) for seed in range(3)]
    found = [row for row in published._rows(Context(in_memory(grid))) if row["source"].startswith("The seed recipe")]
    assert [(row["epoch"], row["published"]) for row in found] == [(1, 202.1153), (2, 156.7775)]
    losses = [history(run, 4)[1]["train/loss"] for run in grid]
    assert found[1]["measured"] == pytest.approx(np.mean(losses))


def test_every_published_number_has_its_source_and_an_estimator_that_exists():
    for one in published_numbers.numbers():
        assert one.source
        assert one.reference
        assert one.what
        assert one.estimator in REGISTRY
        assert one.metric in ("train/loss", "val/loss", "test/neg_elbo", "test/neg_bound")
        assert {"data.name", "data.binarization", "model.n_categories"} <= one.protocol.keys()
        assert (one.sd is None) or (one.n is not None and one.sd > 0)
        stated = {name.removeprefix("estimator.") for name in one.protocol if name.startswith("estimator.")}
        assert stated <= parameters(REGISTRY[one.estimator]).keys()


def test_the_public_runs_are_quoted_with_ten_seeds_and_two_epochs():
    found = [one for one in published_numbers.numbers() if one.source.startswith("Raw")]
    assert len(found) == 6 * 3 - 1 + 5 * 3  # straight_through has no number at epoch 20, and none at 10 × 30
    assert {one.n for one in found} == {10}
    assert {one.epoch for one in found} == {20, 160}
    one = next(one for one in found if (one.estimator, one.epoch, one.metric) == ("reinmax", 20, "train/loss"))
    assert (one.mean, one.sd, one.protocol["schedule.tau"], one.protocol["model.n_categories"]) == (133.4, 0.6, 1.3, 8)
