"""Seeds until the answer is known: what a grid may say, and which runs results ask for."""

import numpy as np
import pytest

from estimators import REGISTRY
from harness.grid.load import Grid, load_grid
from reports.statistics.racing import race

THREE = "estimators: [straight_through, gumbel_softmax, rloo]\n"
UNTIL = "seeds: {until: decided, at_least: 3, at_most: 8, band: 0.5}\n"


@pytest.fixture
def load(tmp_path):
    def load(text: str) -> Grid:
        (tmp_path / "grid.yaml").write_text(text)
        return load_grid(tmp_path / "grid.yaml", REGISTRY)

    return load


def played(grid: Grid, value):
    """Play the rule with made-up results; return its blocks."""
    results = {}
    blocks = []
    for block in grid.growth.rule(lambda run: results.get(run.key)):
        results.update({run.key: value(run) for run in block.runs})
        blocks.append(block)
    return blocks


def noisy(means, scale=1.0, seed=0):
    noise = np.random.default_rng(seed).normal(size=(3, 100))
    names = ["straight_through", "gumbel_softmax", "rloo"]
    return lambda run: means[run.estimator.name] + scale * noise[names.index(run.estimator.name), run.seed]


def test_the_worse_are_dropped_and_the_best_is_named(load):
    means = {"straight_through": 0.0, "gumbel_softmax": 30.0, "rloo": 60.0}
    blocks = played(load(THREE + UNTIL), noisy(means))
    assert len(blocks[0].runs) == 9
    assert [run.seed for run in blocks[0].runs] == [0] * 3 + [1] * 3 + [2] * 3
    said = [line for block in blocks for line in block.lines]
    assert [line for line in said if "rloo is dropped" in line]
    assert said[-1].endswith("straight_through · constant(1) is best")
    assert blocks[-1].runs == ()
    assert sum(len(block.runs) for block in blocks) < 24


def test_the_blocks_are_those_of_the_rule_on_the_same_numbers(load):
    means = {"straight_through": 0.0, "gumbel_softmax": 1.0, "rloo": 3.0}
    value = noisy(means)
    grid = load(THREE + UNTIL.replace("8", "30"))
    runs = [run for block in played(grid, value) for run in block.runs]
    values = np.full((3, 30), np.nan)
    for run in runs:
        values[[each.estimator.name for each in grid.runs[:3]].index(run.estimator.name), run.seed] = value(run)
    found = race(values, band=0.5, at_least=3, at_most=30)
    made = (~np.isnan(values)).sum(1)
    assert made.tolist() == [
        next((d.n_seeds for d in found.dropped if d.setting == i), found.n_seeds) for i in range(3)
    ]


def test_equal_settings_end_within_the_band(load):
    same = played(load(THREE + UNTIL), lambda run: float(run.seed))
    assert same[-1].lines[-1].startswith("decided after 3 seeds: within the band of the best are straight_through")


def test_it_ends_undecided_at_the_last_seed(load):
    blocks = played(
        load(THREE + UNTIL), noisy(dict.fromkeys(("straight_through", "gumbel_softmax", "rloo"), 0.0), seed=1)
    )
    assert sum(len(block.runs) for block in blocks) == 24
    assert blocks[-1].lines[-1].startswith("not decided after 8 seeds: the best is among ")


def test_a_setting_with_a_failed_run_is_dropped(load):
    value = noisy({"straight_through": 0.0, "gumbel_softmax": -90.0, "rloo": 0.0})
    blocks = played(
        load(THREE + UNTIL), lambda run: None if (run.estimator.name, run.seed) == ("rloo", 1) else value(run)
    )
    assert "after 3 seeds: rloo is dropped, a run of it failed" in blocks[1].lines


def test_a_measure_where_higher_is_better_shows_its_own_sign(load):
    text = "task: {name: gated_experts}\ntraining: {epochs: 1}\n" + THREE + UNTIL
    means = {"straight_through": 0.0, "gumbel_softmax": 30.0, "rloo": 60.0}
    said = [line for block in played(load(text), noisy(means)) for line in block.lines]
    assert any("rloo is dropped, [-" in line for line in said)  # results are lower-is-better, accuracy is higher


def test_with_more_seeds_at_most_no_run_is_lost(load):
    """More looks make wider intervals: a setting stays as long or longer."""
    means = {"straight_through": 0.0, "gumbel_softmax": 1.0, "rloo": 2.0}
    few, many = (
        {run.key for block in played(load(THREE + UNTIL.replace("8", n)), noisy(means)) for run in block.runs}
        for n in ("6", "12")
    )
    assert few < many


def test_tasks_race_apart(load):
    text = "task: [{name: polynomial, p: [1.5, 2]}]\n" + THREE + UNTIL.replace(", band: 0.5", "")
    means = {"straight_through": 0.0, "gumbel_softmax": 30.0, "rloo": 60.0}
    blocks = played(load(text), lambda run: noisy(means)(run) if "1.5" in run.task_label else float(run.seed))
    assert len(blocks[0].runs) == 18
    assert all("1.5" in run.task_label for run in blocks[1].runs)


def test_a_tuned_grid_races_the_tuned_settings_alone(load):
    tune = "tune: {trials: 2, space: {training.lr: {log: [1e-4, 1e-2]}}}\n"
    grid = load(THREE + UNTIL + tune)
    means = {"straight_through": 0.0, "gumbel_softmax": 30.0, "rloo": 60.0}
    value = noisy(means)
    blocks = played(grid, lambda run: value(run.model_copy(update={"seed": run.seed % 100})))
    roles = [{run.role for run in block.runs} for block in blocks]
    assert roles[0] == {"trial"}
    assert roles[1] == {"tuned"}
    assert roles[-1] == {"default"}
    assert len(blocks[-1].runs) == 9
    assert (grid.growth.at_least, grid.growth.at_most) == (6 + 9, 6 + 24 + 9)


def test_the_range_of_runs(load):
    growth = load(THREE + UNTIL).growth
    assert (growth.at_least, growth.at_most) == (9, 24)
    assert load(THREE + "seeds: {until: decided}\n").growth.at_most == 90


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("seeds: {until: decides}", "seeds.until: expected decided, got 'decides'. Did you mean 'decided'?"),
        ("seeds: {until: decided, count: 3}", "seeds.count: expected a key of seeds, got 'count'."),
        ("seeds: {until: decided, at_least: 1}", "seeds.at_least: expected a whole number from 2 to 1000, got 1."),
        ("seeds: {until: decided, at_least: 9, at_most: 5}", "seeds.at_most: expected at least at_least (9), got 5."),
        ("seeds: {until: decided, band: -1}", "seeds.band: expected a number >= 0, got -1."),
        ("seeds: {until: decided, band: x}", "seeds.band: expected a number >= 0, got 'x'."),
        ("seeds: {until: decided, within: some}", "seeds.within: expected all or any, got 'some'."),
        ("seeds: {until: decided, first: -1}", "seeds.first: expected a whole number from 0"),
        ("seeds: {until: decided}\ndevices: [cpu, cuda]", "seeds.until: expected one device, got several."),
    ],
)
def test_what_is_refused(refuse, grid, message):
    lines = refuse(f"{THREE}{grid}\n")
    assert len(lines) == 1, lines
    assert message in lines[0]


def test_one_setting_and_a_band_for_several_tasks_are_refused(refuse):
    (line,) = refuse("estimators: [rloo]\nseeds: {until: decided}\n")
    assert "seeds.until: expected at least two settings to decide between, got one." in line
    (line,) = refuse(f"task: [{{name: polynomial, p: [1.5, 2]}}]\n{THREE}seeds: {{until: decided, band: 1}}\n")
    assert "seeds.band: expected none with several tasks" in line
