"""Estimators with settings of their own are compared, and the report says what differs besides the estimator."""

import pytest
from reports_store import Planned, in_memory, planned

from estimators import REGISTRY
from harness.grid.load import load_grid
from reports.comparison import choose_baseline, differences, own_settings
from reports.contract.errors import ReportError
from reports.page import curves
from reports.page.context import Context, Options
from reports.sections import completeness, findings, temperature, verdict
from reports.store.frame import tidy

LRS = {"straight_through": ("0.001", "0.003"), "reinmax": ("0.005",), "rloo": ("0.002",)}


def swept(lrs=LRS, **more):
    """Runs of estimators, each at its own learning rates."""
    return [
        run
        for name, values in lrs.items()
        for lr in values
        for run in planned(name, seeds=(0, 1, 2), **{"axis": f"lr={lr}", **more, "params": {"training.lr": float(lr)}})
    ]


def pairs_of(frame, baseline="straight_through"):
    found = differences(frame, "test/neg_elbo", choose_baseline(frame, baseline))
    return sorted(zip(found["setting"], found["versus"], strict=True))


def test_each_is_paired_with_the_baseline_though_its_learning_rate_differs():
    frame = in_memory(swept()).runs
    assert pairs_of(frame) == [
        (setting, f"straight_through · constant(1) · lr={lr}")
        for setting in ("reinmax · constant(1) · lr=0.005", "rloo · lr=0.002")
        for lr in ("0.001", "0.003")
    ]
    assert (differences(frame, "test/neg_elbo", choose_baseline(frame, None))["n_pairs"] == 3).all()
    assert pairs_of(frame, "rloo") == [
        ("reinmax · constant(1) · lr=0.005", "rloo · lr=0.002"),
        ("straight_through · constant(1) · lr=0.001", "rloo · lr=0.002"),
        ("straight_through · constant(1) · lr=0.003", "rloo · lr=0.002"),
    ]


def test_a_setting_that_the_baseline_has_too_is_paired_with_that_one_only():
    frame = in_memory(swept({"straight_through": ("0.001", "0.003"), "reinmax": ("0.003", "0.005")})).runs
    assert pairs_of(frame) == [
        ("reinmax · constant(1) · lr=0.003", "straight_through · constant(1) · lr=0.003"),
        ("reinmax · constant(1) · lr=0.005", "straight_through · constant(1) · lr=0.001"),
        ("reinmax · constant(1) · lr=0.005", "straight_through · constant(1) · lr=0.003"),
    ]


def test_what_the_grid_sweeps_for_all_is_the_same_in_a_pair():
    runs = [
        run
        for latents in (4, 8)
        for name, lr in (("straight_through", "0.001"), ("reinmax", "0.005"))
        for run in swept({name: (lr,)}, axis=f"n_latents={latents} · lr={lr}")
    ]
    frame = in_memory(runs).runs
    assert set(frame["shared_axes"]) == {"n_latents=4", "n_latents=8"}
    assert set(frame["own_axes"]) == {(("lr", "0.001"),), (("lr", "0.005"),)}
    assert pairs_of(frame) == [
        (
            f"reinmax · constant(1) · n_latents={n} · lr=0.005",
            f"straight_through · constant(1) · n_latents={n} · lr=0.001",
        )
        for n in (4, 8)
    ]
    (against,) = set(differences(frame, "test/neg_elbo", choose_baseline(frame, None))["against"])
    assert against == "constant(1) · lr=0.001"


def test_other_schedules_are_paired_where_no_schedule_is_the_same():
    runs = [*planned("straight_through", seeds=(0, 1)), *(Planned("reinmax", "exponential", seed) for seed in (0, 1))]
    ((setting, versus),) = pairs_of(in_memory(runs).runs)
    assert setting.startswith("reinmax · exponential")
    assert versus == "straight_through · constant(1)"
    runs += [Planned("straight_through", "exponential", seed) for seed in (0, 1)]
    ((_, versus),) = [pair for pair in pairs_of(in_memory(runs).runs) if pair[0].startswith("reinmax")]
    assert versus.startswith("straight_through · exponential")


def test_of_several_schedules_the_same_one_is_paired_though_the_learning_rate_differs():
    both = ("constant", "exponential")
    runs = [Planned("straight_through", schedule, seed, axis="lr=0.001") for schedule in both for seed in (0, 1)]
    runs += [Planned("reinmax", "constant", seed, axis="lr=0.005") for seed in (0, 1)]
    found = [pair for pair in pairs_of(in_memory(runs).runs) if pair[0].startswith("reinmax")]
    assert found == [("reinmax · constant(1) · lr=0.005", "straight_through · constant(1) · lr=0.001")]


def test_data_and_evaluation_are_never_an_estimators_own():
    """They differ between estimators only in a grid that was edited: such runs are not compared."""
    runs = [*planned("rloo", seeds=(0, 1), axis="data=mnist"), *planned("reinforce", seeds=(0, 1), axis="data=kmnist")]
    frame = in_memory(runs).runs
    assert pairs_of(frame, "rloo") == []
    assert (frame["shared_axes"] == frame["axes"]).all()
    context = Context(in_memory(runs), Options(baseline="reinforce"))
    metric = context.primary
    shown = (context.levels(metric), context.differences(metric), context.baseline)
    _, said = findings.sentence(context.frame, metric, *shown)
    assert said.endswith("It cannot be paired with the baseline reinforce: that was not run with data=mnist.")


def test_runs_of_a_former_grid_make_no_axis_an_estimators_own():
    now = {"device": "cpu", "seed": 0, "status": "finished", "schedule": "none", "test/neg_elbo": 1.0, "former": False}
    records = [
        {**now, "run_key": name, "estimator": name, "label": f"{name} · lr=0.001"} for name in ("rloo", "reinforce")
    ]
    before = {**now, "run_key": "old", "estimator": "rloo", "label": "rloo · lr=0.1", "former": True}
    assert set(tidy([*records, before])["own_axes"]) == {()}
    assert set(tidy([*records, {**before, "former": False}])["own_axes"]) == {(("lr", "0.001"),), (("lr", "0.1"),)}
    assert own_settings(in_memory(swept()).runs.assign(former=True)) == {}


@pytest.mark.parametrize("status", ["finished", "missing"])
def test_the_verdict_says_what_differs_once(status):
    runs = in_memory(swept(status=status))
    expected = (
        "Settings differ besides the estimator. Each at its own lr: reinmax at 0.005; rloo at 0.002; straight_through "
        "at 0.001 and 0.003."
    )
    blocks = verdict.section(Context(runs)).blocks
    assert [block.text for block in blocks if getattr(block, "text", "").startswith("Settings differ")] == [expected]
    assert findings.differing(in_memory(planned("straight_through", "rloo", seeds=(0, 1))).runs) == ""


def test_estimators_with_the_same_values_are_named_together_and_many_are_cut():
    lrs = {"straight_through": ("0.001", "0.003"), "gumbel_softmax": ("0.003", "0.001"), "rloo": ("0.002",)}
    assert findings.differing(in_memory(swept(lrs)).runs).endswith(
        "lr: gumbel_softmax and straight_through at 0.001 and 0.003; rloo at 0.002."
    )
    many = {f"e{i:02}": (f"0.{i + 1:03}",) for i in range(20)}
    assert findings.differing(in_memory(swept(many)).runs).endswith("e07 at 0.008; 12 more in the tables below.")


def test_schedules_of_their_own_are_named_too():
    frame = in_memory([*planned("straight_through", seeds=(0,)), Planned("reinmax", "exponential", 0)]).runs
    frame["tau"] = 1.0
    (name, values), *more = own_settings(frame).items()
    assert (name, more) == ("schedule", [])
    assert values["straight_through"] == ("constant(1)",)
    assert own_settings(frame.assign(tau=float("nan"))) == {}  # such as the t of mve: no temperature


def test_they_share_panels_of_learning_curves_and_columns_of_completeness():
    runs = in_memory(swept())
    assert curves.n_panels(runs.history, "val/loss") == 1
    (panel,) = curves.curves(runs.history)
    assert all(f"lr={lr}" in panel.svg for lr in LRS["straight_through"])
    table = completeness.outcomes(runs.runs)
    assert [column.title for column in table.columns] == ["Estimator", "constant(1) · cpu", "no temperature · cpu"]
    assert [cell.text for cell in table.rows[-1]][:2] == ["straight_through", "6 finished"]


def test_estimators_at_their_own_schedules_share_a_panel():
    runs = [*planned("straight_through", seeds=(0, 1)), *(Planned("reinmax", "exponential", seed) for seed in (0, 1))]
    assert curves.n_panels(in_memory(runs).history, "val/loss") == 1
    runs += [Planned("straight_through", "exponential", 0)]
    assert curves.n_panels(in_memory(runs).history, "val/loss") == 2


def test_the_temperature_table_names_the_learning_rate_of_a_cell():
    cells = temperature.best_cells(in_memory(swept()).runs, "test/neg_elbo").set_index("estimator_label")
    assert cells.loc["reinmax", "axes"] == "lr=0.005"


def test_groups_of_an_estimator_are_means_over_its_own_settings():
    runs = in_memory(swept())
    compared = Context(runs, Options(group_by="estimator")).compared
    assert pairs_of(compared) == [("reinmax", "straight_through"), ("rloo", "straight_through")]
    with pytest.raises(ReportError, match=r"in every group of training\.lr"):
        Context(runs, Options(group_by="training.lr"))


def test_the_warning_about_confounding_is_of_estimators_with_several_schedules_and_one_learning_rate():
    def warned(runs):
        return any("confounded" in text for text in findings.warnings(in_memory(runs).runs))

    both = [Planned("reinmax", schedule, 0, axis="lr=0.005") for schedule in ("constant", "exponential")]
    assert warned([*planned("straight_through", axis="lr=0.001"), *both])
    assert not warned([*planned("straight_through", axis="lr=0.001"), *both[1:]])


def test_runs_of_a_grid_keep_apart_what_is_an_estimators_own(tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "training: {lr: [1e-3, 3e-3]}\nmodel: {n_latents: [4, 8]}\nseeds: [0, 1]\nestimators:\n"
        "  - straight_through\n"
        "  - {name: reinmax, training: {lr: 5e-3, optimizer: radam}, schedule: {kind: constant, tau: 1.3}}\n"
    )
    runs = load_grid(tmp_path / "grid.yaml", REGISTRY).runs
    frame = tidy([{**_record(run), "tau": 1.0, "test/neg_elbo": float(number)} for number, run in enumerate(runs)])
    assert own_settings(frame) == {
        "optimizer": {"straight_through": ("adam",), "reinmax": ("radam",)},
        "lr": {"straight_through": ("0.001", "0.003"), "reinmax": ("0.005",)},
        "schedule": {"straight_through": ("constant(1)",), "reinmax": ("constant(1.3)",)},
    }
    found = differences(frame, "test/neg_elbo", choose_baseline(frame, None))
    assert (len(found), set(found["n_pairs"])) == (4, {2})
    assert all(a.split("n_latents=")[1][0] == b.split("n_latents=")[1][0] for a, b in pairs_of(frame))


def _record(run):
    return {
        "run_key": run.key,
        "run_id": run.key,
        "label": run.label,
        "parts": run.setting,
        "estimator": run.estimator.name,
        "schedule": run.schedule.label,
        "device": "cpu",
        "seed": run.seed,
        "status": "finished",
    }
