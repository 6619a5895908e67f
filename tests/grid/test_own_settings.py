"""An estimator's own training, schedule and model: they replace the grid's for it alone, and keys do not know."""

import pytest

from estimators import REGISTRY, Pathwise
from harness.config import DataConfig, EvaluationConfig, RunConfig
from harness.grid.load import load_grid
from harness.schedules import Constant
from reports.contract.settings import SAME_FOR_ALL

HEAD = "seeds: [0]\n"


@pytest.fixture
def load(tmp_path):
    def load(text, registry=REGISTRY):
        (tmp_path / "grid.yaml").write_text(HEAD + text)
        return load_grid(tmp_path / "grid.yaml", registry)

    return load


def labels(grid):
    return [run.label for run in grid.runs]


def test_they_replace_the_values_of_the_grid_for_this_estimator_alone(load):
    own = "{name: reinmax, training: {lr: 5e-4, optimizer: radam}, schedule: {kind: constant, tau: 1.3}}"
    grid = load(f"training: {{epochs: 3, lr: [1e-3, 1e-4]}}\nestimators: [straight_through, {own}, rloo]")
    assert labels(grid) == [
        "straight_through · constant(1) · optimizer=adam · lr=0.001",
        "rloo · optimizer=adam · lr=0.001",
        "straight_through · constant(1) · optimizer=adam · lr=0.0001",
        "rloo · optimizer=adam · lr=0.0001",
        "reinmax · constant(1.3) · optimizer=radam · lr=0.0005",
    ]
    mine = grid.runs[-1]
    assert (mine.training.epochs, mine.training.lr, mine.training.optimizer) == (3, 5e-4, "radam")
    assert mine.schedule == Constant(tau=1.3)
    assert mine.setting.axes == (("optimizer", "radam"), ("lr", "0.0005"))
    assert grid.notes == ()


def test_the_key_is_that_of_the_same_settings_given_in_the_grid(load):
    schedule = "{kind: constant, tau: 1.3}"
    (own,) = load(
        f"estimators: [{{name: reinmax, training: {{lr: 5e-4}}, schedule: {schedule}, model: {{hidden: [8]}}}}]"
    ).runs
    (plain,) = load(
        "training: {lr: 5e-4}\nmodel: {hidden: [8]}\nschedules: [{kind: constant, tau: 1.3}]\nestimators: [reinmax]"
    ).runs
    assert own.key == "f31d51c1ee91dbf2"  # from before an estimator could have settings for itself
    assert (own.key, own.label, own.to_json()) == (plain.key, plain.label, plain.to_json())
    assert type(own).from_json(own.to_json()).key == own.key


def test_empty_settings_are_none(load):
    (run,) = load("estimators: [{name: reinmax, training: {}}]").runs
    assert run.key == load("estimators: [reinmax]").runs[0].key == RunConfig(estimator=run.estimator).key


def test_lists_among_them_are_sweeps(load):
    schedules = "[constant, {kind: linear, final: 0.5}]"
    own = f"{{name: reinmax, n_samples: [1, 2], training: {{lr: [1e-3, 2e-3]}}, schedule: {schedules}}}"
    grid = load(f"estimators: [{own}, {{name: rloo, model: {{hidden: [[4], [8]]}}}}]")
    assert len(grid.runs) == len({run.key for run in grid.runs}) == 2 * 2 * 2 + 2
    assert labels(grid)[:3] == [
        "reinmax · constant(1) · hidden=[512, 256] · lr=0.001",
        "reinmax · linear(1→0.5) · hidden=[512, 256] · lr=0.001",
        "reinmax(n_samples=2) · constant(1) · hidden=[512, 256] · lr=0.001",
    ]
    assert labels(grid)[-2:] == ["rloo · hidden=[4] · lr=0.001", "rloo · hidden=[8] · lr=0.001"]


def test_seeds_and_devices_stay_outermost(load):
    runs = load("devices: [cpu, cuda]\nestimators: [{name: reinmax, training: {lr: 5e-4}}, rloo]").runs
    assert [(run.device, run.estimator.name) for run in runs] == [
        ("cpu", "rloo"), ("cpu", "reinmax"), ("cuda", "rloo"), ("cuda", "reinmax"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("lr: 1e-2", ["epochs=1 · lr=0.01", "epochs=2 · lr=0.01"]),
        ("lr: 1e-2, epochs: 3", ["epochs=3 · lr=0.01"]),
        ("epochs: 3", ["epochs=3 · lr=0.001", "epochs=3 · lr=0.0001"]),
        ("batch_size: 50", ["epochs=1 · batch_size=50 · lr=0.001", "epochs=2 · batch_size=50 · lr=0.0001"]),
    ],
)
def test_a_zipped_group_loses_what_is_replaced(load, own, expected):
    group = "zip: [{training.lr: [1e-3, 1e-4], training.epochs: [1, 2]}]"
    grid = load(f"{group}\nestimators: [rloo, {{name: reinforce, training: {{{own}}}}}]")
    assert [label for label in labels(grid) if label.startswith("reinforce")] == [f"reinforce · {e}" for e in expected]
    assert sum(label.startswith("rloo") for label in labels(grid)) == 2


def test_rows_of_a_group_that_differ_in_replaced_settings_alone_are_one(load):
    group = "zip: [{training.lr: [1e-3, 1e-4], training.epochs: [2, 2]}]"
    assert labels(load(f"{group}\nestimators: [{{name: rloo, training: {{lr: 1e-2}}}}]")) == ["rloo"]


def test_several_names_share_the_settings_of_their_entry(load):
    grid = load("estimators: [{name: [rloo, reinforce], training: {lr: [1e-3, 2e-3]}}]")
    assert labels(grid) == ["rloo · lr=0.001", "reinforce · lr=0.001", "rloo · lr=0.002", "reinforce · lr=0.002"]


def test_the_same_estimator_may_have_several_entries(load):
    grid = load("estimators: [reinmax, {name: reinmax, label: tuned, training: {lr: 5e-4}}]")
    assert labels(grid) == ["reinmax · constant(1) · lr=0.001", "tuned · constant(1) · lr=0.0005"]
    grid = load("estimators: [{name: rloo, training: {lr: 1e-4}}, {name: rloo, training: {lr: 1e-3}}]")
    assert labels(grid) == ["rloo · lr=0.0001", "rloo · lr=0.001"]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (
            "estimators: [reinmax, {name: reinmax, training: {lr: [5e-4, 1e-3]}}]",
            "2:23: estimators[1]: expected each run once, got 'reinmax · constant(1) · lr=0.001' again (first: "
            "estimators[0] on line 2).",
        ),
        (
            "estimators: [{name: reinmax, schedule: constant}, reinmax]",
            "2:51: estimators[1]: expected each run once, got 'reinmax · constant(1)' again (first: estimators[0] on "
            "line 2).",
        ),
        (
            "task: [polynomial, categorical_vae]\nestimators: [rloo, {name: rloo, model: {n_latents: 9}}]",
            "3:20: estimators[1]: expected each run once, got 'rloo · task=polynomial' again (first: estimators[0] on "
            "line 3).",
        ),
        (
            "estimators: [{name: rloo, training: {lr: [1e-3, 1e-3]}}]",
            "2:49: estimators[0].training.lr[1]: expected each run once, got 0.001. The same setting: "
            "estimators[0].training.lr[0] on line 2.",
        ),
        (
            "estimators: [{name: reinmax, schedule: [constant, {kind: constant, tau: 1}]}]",
            "2:51: estimators[0].schedule[1]: expected each run once, got 'constant(1)' again (first: "
            "estimators[0].schedule[0] on line 2).",
        ),
        (
            "estimators: [rloo, {name: rloo, n_samples: [4, 4], training: {lr: 1e-4}}]",
            "2:20: estimators[1]: expected each run once, got 'rloo' again (first: estimators[1] on line 2).",
        ),
    ],
)
def test_the_same_run_twice_is_one_line(refuse, grid, expected):
    assert refuse(HEAD + grid) == [expected]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("estimators: [{name: rloo, trainng: {lr: 1}}]",
         "2:27: estimators[0].trainng: expected a key of estimators[0], got 'trainng'. Did you mean 'training'?"),
        ("estimators: [{name: rloo, data: {name: mnist}}]",
         "2:27: estimators[0].data: expected data in the grid, since all estimators share it, got it here."),
        ("estimators: [{name: rloo, training: {l: 1}}]",
         "2:38: estimators[0].training.l: expected a key of estimators[0].training, got 'l'. Did you mean 'lr'?"),
        ("estimators: [{name: rloo, training: {lr: 0}}]",
         "2:42: estimators[0].training.lr: expected a value > 0, got 0."),
        ("estimators: [{name: rloo, training: [1]}]", "2:37: estimators[0].training: expected a mapping, got [1]."),
        ("estimators: [{name: reinmax, schedule: []}]",
         "2:40: estimators[0].schedule: expected a list of at least one schedule, got []."),
        ("estimators: [{name: reinmax, schedules: constant}]",
         "2:30: estimators[0].schedules: expected a key of estimators[0], got 'schedules'. Did you mean 'schedule'?"),
        ("estimators: [{name: reinmax, schedule: {kind: constant, tau: 0}}]",
         "2:62: estimators[0].schedule.tau: expected a value > 0, got 0."),
        ("estimators: [{name: reinmax, schedule: [constant, growing]}]",
         "2:51: estimators[0].schedule[1]: expected a schedule for reinmax, got growing, which sets t: reinmax has "
         "tau."),
        ("estimators: [{name: [reinmax, rloo], schedule: constant}]",
         "2:48: estimators[0].schedule: expected a schedule for rloo, got constant, which sets tau: rloo has no "
         "temperature."),
        ("estimators: [{name: mve, t: 3, schedule: growing}]",
         "2:29: estimators[0].t: expected no t here, got 3. A schedule of its own sets it."),
        ("training: {optimizer: sgd, momentum: 0.9}\nestimators: [rloo, {name: reinmax, training: {optimizer: adam}}]",
         "3:20: estimators[1].training.momentum: expected 0 with optimizer adam, got 0.9. Use optimizer: sgd, or leave "
         "momentum out."),
        ("model: {backbone: conv, n_latents: 49}\nestimators: [rloo, {name: rloo, model: {n_latents: 20}}]",
         "3:52: estimators[1].model.n_latents: expected 49 = 7 × 7 with backbone conv, 2 convolutions and images of 28 "
         "× 28, got 20."),
        ("estimators: [{name: rloo, model: {backbone: conv}}]",
         "2:14: estimators[0].model.n_latents: expected 49 = 7 × 7 with backbone conv, 2 convolutions and images of 28 "
         "× 28, got 20."),
        ("task: polynomial\nestimators: [{name: rloo, model: {n_latents: 20}}]",
         "3:46: estimators[0].model.n_latents: expected the settings of polynomial under task, got one of "
         "categorical_vae. Remove model, or the task."),
        ("estimators: [rloo]\ndiagnostics: {basket: [{name: reinmax, schedule: constant}]}",
         "3:40: diagnostics.basket[0].schedule: expected no schedule of its own in a basket, which is measured in the "
         "runs of others, got one. Remove schedule."),
        ("estimators: [{name: rloo, label: a}, {name: reinmax, label: a, training: {lr: 1e-4}}]",
         "2:38: estimators[1]: expected a label of its own, got 'a' again (first: estimators[0] on line 2)."),
        ("schedules: [{kind: constant, tau: 2, label: x}]\n"
         "estimators: [straight_through, {name: reinmax, schedule: {kind: constant, label: x}}]",
         "3:58: estimators[1].schedule: expected a label of its own, got 'x' again (first: schedules[0] on line 2)."),
        ("estimators: [rloo, {name: nvil, training: {compile: 'on'}}]",
         "2:20: estimators[1]: expected an estimator without parameters of its own where training.compile is on, got "
         "'nvil'. Use compile: auto."),
        ("model: {n_categories: 2}\nestimators: [rloo, {name: rebar, model: {n_categories: 1}}]",
         "3:56: estimators[1].model.n_categories: expected a value >= 2, got 1."),
    ],
)  # fmt: skip
def test_bad_settings_are_one_line_at_their_place(refuse, grid, expected):
    assert refuse(HEAD + grid) == [expected]


def test_too_many_runs_are_counted_over_all_estimators(refuse):
    many = ", ".join(map(str, range(1, 401)))
    own = f"{{name: rloo, training: {{epochs: [{many}], batch_size: [{many}]}}}}"
    assert refuse(HEAD + f"estimators: [reinmax, {own}]") == ["1:1: grid: expected at most 100000 runs, got 160001."]


def test_shapes_and_costs_are_those_of_the_estimators_own_model(load, refuse):
    small = "{name: arsm, model: {n_latents: 2, n_categories: 3}}"
    grid = load(f"estimators: [rloo, {small}]")
    assert grid.notes == ()  # at 20 × 10 it would evaluate the decoder often
    large = "{name: arsm, model: {n_latents: 3, n_categories: 9}}"
    (note,) = load(f"model: {{n_latents: 2, n_categories: 3}}\nestimators: [rloo, {large}]").notes
    assert note.endswith("at 3 × 9 latents")
    assert len(load("estimators: [rloo, {name: disarm, model: {n_categories: 2}}]").runs) == 2
    (line,) = refuse(HEAD + "model: {n_categories: 2}\nestimators: [disarm, {name: disarm, model: {n_categories: 3}}]")
    assert line == "3:22: estimators[1]: expected n_categories = 2, got 3. Use disarm_sb."


def test_a_task_without_that_section_has_the_estimator_once(load):
    own = "{name: rloo, model: {n_latents: [9, 10]}}"
    grid = load(f"task: [polynomial, categorical_vae]\nestimators: [{own}]")
    assert labels(grid) == [
        "rloo · task=polynomial",
        "rloo · task=categorical_vae · n_latents=9",
        "rloo · task=categorical_vae · n_latents=10",
    ]


def test_values_of_the_grid_that_nobody_has_are_a_note(load):
    own = "{name: reinmax, training: {lr: 1e-2}, schedule: constant}"
    grid = load(f"training: {{lr: 1e-3, epochs: 1}}\nschedules: [constant]\nestimators: [{own}]")
    assert grid.notes[:2] == (
        "training.lr of the grid has no effect: every estimator has its own",
        "schedules of the grid have no effect: every estimator has its own",
    )
    assert not [n for n in load(f"training: {{lr: 1e-3}}\nestimators: [rloo, {own}]").notes if "has its own" in n]


def test_notes_about_schedules_are_of_those_who_use_the_grids(load):
    schedules = "schedules: [{kind: constant, tau: [0.5, 1.0]}]"
    grid = load(f"{schedules}\nestimators: [straight_through, {{name: reinmax, schedule: constant}}]")
    assert (grid.notes, len(grid.runs)) == ((), 3)


def test_an_estimator_whose_only_schedules_are_its_own_needs_none_of_the_grid(load):
    grid = load("schedules: [growing]\nestimators: [mve, {name: reinmax, schedule: constant}]")
    assert labels(grid)[-1] == "reinmax · constant(1)"


class Trained(Pathwise):
    """Has parameters of these names."""

    name, relaxes = "trained", True

    def __init__(self, *, training: float = 1.0, model: str = "a", schedule: str = "b") -> None:
        super().__init__()

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)


def test_parameters_of_these_names_stay_a_plugins_own(load, refuse):
    registry = {**REGISTRY, "trained": Trained}
    grid = load("estimators: [{name: trained, training: [2, 3], model: x}]", registry)
    assert [dict(run.estimator.params) for run in grid.runs] == [
        {"model": "x", "schedule": "b", "training": value} for value in (2.0, 3.0)
    ]
    (line,) = refuse(HEAD + "estimators: [{name: trained, training: {lr: 1}}]", registry)
    assert "estimators[0].training: expected a plain value" in line


def test_fields_that_are_never_an_estimators_own_are_those_of_data_and_evaluation():
    run = RunConfig(estimator={"name": "rloo"})
    for section, model in (("data", DataConfig), ("evaluation", EvaluationConfig)):
        for field in model.model_fields.keys() - set(model.derived):
            assert run._varying(f"{section}.{field}")[0] in SAME_FOR_ALL
