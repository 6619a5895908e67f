"""The section `tune` of a grid: which trials it makes, and what it refuses."""

import pytest
from grid_errors import HEAD

from estimators import REGISTRY
from harness.grid.load import Grid, load_grid
from harness.search.tuning import FIRST_TRIAL_SEED

SPACE = "tune: {trials: 5, space: {training.lr: {log: [1e-4, 1e-2]}, training.optimizer: [adam, radam]}}\n"
TWO = "estimators: [straight_through, rloo]\nseeds: [0, 1]\n"


@pytest.fixture
def load(tmp_path):
    def load(text: str) -> Grid:
        (tmp_path / "grid.yaml").write_text(text)
        return load_grid(tmp_path / "grid.yaml", REGISTRY)

    return load


def first_block(grid: Grid):
    return next(grid.growth.rule(lambda _: None)).runs


def test_every_estimator_has_the_same_draws_and_seeds_of_its_own(load):
    runs = first_block(load(TWO + SPACE))
    assert len(runs) == 10
    by_estimator = [[run for run in runs if run.estimator.name == name] for name in ("straight_through", "rloo")]
    for one, other in zip(*by_estimator, strict=True):
        assert one.training == other.training
        assert one.seed == other.seed == FIRST_TRIAL_SEED + one.trial
        assert one.role == other.role == "trial"
    lrs = [run.training.lr for run in by_estimator[0]]
    assert len(set(lrs)) == 5
    assert all(1e-4 <= lr <= 1e-2 for lr in lrs)
    assert {run.training.optimizer for run in runs} == {"adam", "radam"}
    assert runs[0].label == f"straight_through · constant(1) · lr={lrs[0]!r} · optimizer={runs[0].training.optimizer}"


def test_more_trials_begin_with_those_of_fewer(load):
    few, many = (first_block(load(TWO + SPACE.replace("5", n, 1))) for n in ("3", "8"))
    assert [run.key for run in few] == [run.key for run in many][:6]


def test_another_setting_to_search_changes_no_other_draw(load):
    more = SPACE.replace("space: {", "space: {schedule.tau: {uniform: [0.5, 2]}, ")
    for plain, richer in zip(*(first_block(load(TWO + text)) for text in (SPACE, more)), strict=True):
        assert plain.training == richer.training
    straight_through, rloo = first_block(load(TWO + more))[:2]
    assert 0.5 <= straight_through.schedule.value <= 2
    assert rloo.schedule.kind == "none"
    assert straight_through.competitor == "straight_through · constant"
    assert rloo.competitor == "rloo"


def test_draws_are_uniform_on_their_scale(load):
    runs = first_block(load(TWO.replace(", rloo", "") + SPACE.replace("5", "2000", 1)))
    below = sum(run.training.lr < 1e-3 for run in runs)
    assert 900 < below < 1100
    assert 900 < sum(run.training.optimizer == "adam" for run in runs) < 1100


def test_parameters_of_an_estimator_are_searched_for_it_alone(load):
    text = TWO + "tune: {trials: 6, space: {'estimators[rloo].n_samples': [2, 8]}}\n"
    runs = first_block(load(text))
    assert {run.estimator.params["n_samples"] for run in runs if run.estimator.name == "rloo"} == {2, 8}
    assert {run.label for run in runs} == {"straight_through · constant(1)", "rloo(n_samples=2)", "rloo(n_samples=8)"}
    imle = "estimators: [{name: imle, lam: 1.0}]\nseeds: [0]\n"
    (run,) = first_block(load(imle + "tune: {trials: 1, space: {'estimators[imle].lam': {log: [0.1, 10]}}}\n"))
    assert run.label == f"imle(lam={run.estimator.params['lam']!r})"


def test_the_grid_sampler_tries_every_combination(load):
    space = "tune: {sampler: grid, space: {training.lr: [0.1, 0.01, 0.001], model.hidden: [[8], [16, 8]]}}\n"
    runs = first_block(load(TWO + space))
    assert len(runs) == 2 * 6
    assert len({(run.training.lr, run.model.hidden) for run in runs if run.estimator.name == "rloo"}) == 6


def test_the_numbers_of_runs_that_it_can_come_to(load):
    growth = load(TWO + SPACE).growth
    assert (growth.at_least, growth.at_most) == (2 * 5 + 2 * 2, 2 * 5 + 2 * 2 * 2)
    without = load(TWO + SPACE.replace("trials", "default: false, trials")).growth
    assert (without.at_least, without.at_most) == (14, 14)


def test_a_grid_without_it_keeps_its_keys(load):
    """A trial and its final run differ in the key; nothing of a tuning is in the key of another run."""
    plain = load(TWO).runs[0]
    assert "trial" not in plain.canonical
    assert not {"trial", "role", "competitor"} & set(plain.to_json())
    assert '"role"' not in plain.to_json()
    trial = first_block(load(TWO + SPACE))[0]
    final = trial.model_copy(update={"trial": None})
    assert trial.key != final.key
    assert type(trial).from_json(trial.to_json()) == trial


NUMBER = "expected a whole number >= 1, got"
RANGE = "expected a list of values, {log: [low, high]} or {uniform: [low, high]}, got"


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("3", "tune: expected a mapping, got 3."),
        ("{trials: 3}", "tune.space: expected at least one setting to search, got none: "),
        ("{trials: 3, space: {}}", "tune.space: expected at least one setting to search, got none: "),
        ("{trials: 3, space: {training.lr: []}}", "expected at least one value, got an empty list."),
        ("{trials: 3, space: {training.lr: [0.1, 0.1]}}", "expected each value once, got [0.1, 0.1]."),
        ("{trials: 3, space: {training.lr: 0.1}}", f"{RANGE} 0.1."),
        ("{trials: 3, space: {training.lr: {log: [1, 2], uniform: [1, 2]}}}", RANGE),
        ("{trials: 3, space: {training.lr: {lin: [1, 2]}}}", RANGE),
        ("{trials: 3, space: {training.lr: {log: [1]}}}", "expected {log: [low, high]} with two numbers, got"),
        ("{trials: 3, space: {training.lr: {log: [a, 1]}}}", "expected {log: [low, high]} with two numbers, got"),
        ("{trials: 3, space: {training.lr: {log: [0.1, 0.01]}}}", "expected low < high, got [0.1, 0.01]."),
        ("{trials: 3, space: {training.lr: {log: [0, 1]}}}", "expected low > 0 on a logarithmic scale, got [0, 1]."),
        ("{trials: 3, space: {training.lr: {uniform: [-1, 1]}}}", "expected a value > 0, got -1.0"),
        ("{trials: 3, space: {training.lrr: [0.1]}}", "got 'training.lrr'. Did you mean 'lr'?"),
        ("{trials: 3, space: {lr: [0.1]}}", "expected the name of a setting, such as training.lr"),
        ("{trials: 3, space: {training.epochs: [1, 2]}}", "expected a setting that leaves the budget equal for all"),
        ("{trials: 3, space: {schedule.rate: [0.1]}}", "expected a setting that a run of the grid has, got one of"),
        ("{trials: 3, space: {'estimators[relo].tau': [1]}}", "expected an estimator of the grid, got 'relo'."),
        ("{trials: 3, space: {'estimators[straight_through].n': [1]}}", "expected a parameter of straight_through"),
        ("{trials: 3, space: {'estimators[straight_through].n_samples': [0]}}", "expected a whole number n_samples"),
        ("{trials: 0, space: {training.lr: [0.1]}}", f"tune.trials: {NUMBER} 0."),
        ("{trials: 2.5, space: {training.lr: [0.1]}}", f"tune.trials: {NUMBER} 2.5."),
        ("{trials: true, space: {training.lr: [0.1]}}", f"tune.trials: {NUMBER} true."),
        ("{trials: 1000000, space: {training.lr: [0.1]}}", "expected at most 100000 trials of all 1 competitors"),
        ("{space: {training.lr: [0.1]}}", "tune.trials: expected the number of trials of each estimator, got none."),
        ("{trials: 2, sampler: tpe2, space: {training.lr: [0.1]}}", "tune.sampler: expected one of random, grid"),
        ("{trials: 2, default: 1, space: {training.lr: [0.1]}}", "tune.default: expected true or false, got 1."),
        ("{trials: 2, trails: 1, space: {training.lr: [0.1]}}", "got 'trails'. Did you mean 'trials'?"),
        ("{sampler: grid, space: {training.lr: {log: [1, 2]}}}", "expected a list of values for the sampler grid"),
        ("{sampler: grid, trials: 1, space: {training.lr: [1, 2]}}", "expected at least the 2 combinations, got 1."),
        (
            "{trials: 9, space: {training.optimizer: [adam, sgd], training.momentum: [0.0, 0.9]}}",
            "momentum: expected 0 with optimizer adam",
        ),
    ],
)
def test_what_is_refused(refuse, tune, message):
    lines = refuse(f"{HEAD}tune: {tune}\n")
    assert len(lines) == 1, lines
    assert message in lines[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("training: {lr: [0.1, 0.01]}\n", "expected settings that the grid does not sweep, got the same trials for"),
        ("evaluation: {validation_split: test}\n", "validation_split: validation, since trials are compared there"),
        ("devices: [cpu, cuda]\n", "tune: expected one device, got several."),
    ],
)
def test_grids_that_cannot_be_tuned(refuse, more, message):
    lines = refuse(f"{HEAD}{more}tune: {{trials: 2, space: {{training.lr: [0.1, 0.2]}}}}\n")
    assert len(lines) == 1, lines
    assert message in lines[0]


def test_seeds_of_trials_are_refused_for_final_runs(refuse):
    tune = "tune: {trials: 2, space: {training.lr: [0.1]}}\n"
    one = HEAD.replace("[0]", f"[0, {FIRST_TRIAL_SEED}]") + tune
    race = f"estimators: [rloo, carms]\nseeds: {{until: decided, first: {FIRST_TRIAL_SEED - 5}, at_most: 6}}\n{tune}"
    for text in (one, race):
        (line,) = refuse(text)
        assert "expected seeds below 1,000,000,000" in line


def test_competitors_whose_names_would_be_the_same_keep_their_labels(load):
    schedules = "schedules: [{kind: linear, initial: 1.0, final: 0.5}, {kind: linear, initial: 2.0, final: 0.5}]\n"
    tune = "tune: {trials: 1, space: {schedule.final: {uniform: [0.1, 0.4]}}}\n"
    runs = first_block(load("estimators: [reinmax]\nseeds: [0]\n" + schedules + tune))
    assert len({run.competitor for run in runs}) == len(runs) == 2
