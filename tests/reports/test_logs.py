"""Logs that somebody else made: the runs, measures and tables that a CSV or a frame of them gives."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from report_page import Page
from reports_store import Planned, in_memory, main_grid, planned
from task_runs import FakeTask, measure, task_runs

from reports import comparison, from_csv, from_frame, report, to_csv
from reports.contract.errors import ReportError
from reports.page.context import Context, Options
from reports.sections import SECTIONS
from reports.store import log_export

VALUES = {"ours": 0.9, "theirs": 0.7}


def logs(*, seeds=(0, 1, 2), steps=(10, 20), lrs=("0.1",), **more):
    """A frame of the accuracy of two estimators: higher at later steps and at higher learning rates."""
    rows = [
        {"estimator": name, "seed": seed, "step": step, "metric": "accuracy", "lr": lr,
         "value": value + step / 1000 + float(lr) / 10 + (0.01 + 0.02 * value) * seed, **more}
        for name, value in VALUES.items() for lr in lrs for seed in seeds for step in steps
    ]  # fmt: skip
    return pd.DataFrame(rows)


def of_accuracy(frame):
    return from_frame(frame, measure="accuracy", better="higher", unit="%")


def texts_of(runs, **options):
    context = Context(runs, Options(**options))
    return Page(report.render(context, [section(context) for section in SECTIONS])).text


def test_the_last_value_of_a_run_is_its_result_and_all_are_its_curve():
    runs = of_accuracy(logs())
    row = runs.runs[(runs.runs["estimator"] == "ours") & (runs.runs["seed"] == 1)].iloc[0]
    assert row["metric/accuracy"] == pytest.approx(0.9 + 0.02 + 0.01 + 0.028)
    assert (row["status"], row["setting"], row["device"], row["task"]) == ("finished", "ours", "unknown", "logs")
    curve = runs.history[runs.history["run_key"] == row["run_key"]]
    assert curve["step"].tolist() == [10, 20]
    assert curve["metric/accuracy"].tolist() == pytest.approx([row["metric/accuracy"] - 0.01, row["metric/accuracy"]])


def test_the_stated_direction_ranks_the_settings():
    runs = of_accuracy(logs())
    (declared,) = runs.measures["logs"]
    assert (declared.better, declared.unit, declared.metric) == ("higher", "%", "metric/accuracy")
    levels = comparison.levels(runs.runs, "metric/accuracy")
    assert levels["setting"].tolist() == ["ours", "theirs"]
    lower = from_frame(logs(), measure="accuracy", better="lower")
    assert comparison.levels(lower.runs, "metric/accuracy")["setting"].tolist() == ["theirs", "ours"]


def test_differences_are_paired_by_seed():
    runs = of_accuracy(logs()).runs
    row = comparison.differences(runs, "metric/accuracy", comparison.choose_baseline(runs, "theirs")).iloc[0]
    assert (row["n_pairs"], row["mean"]) == (3, pytest.approx(0.2 + 0.004))


def test_a_column_that_differs_is_an_axis_and_another_is_a_parameter():
    runs = of_accuracy(logs(lrs=("0.1", "0.2"), dataset="cifar")).runs
    assert sorted(set(runs["setting"])) == ["ours · lr=0.1", "ours · lr=0.2", "theirs · lr=0.1", "theirs · lr=0.2"]
    assert set(runs["dataset"]) == {"cifar"}


def test_estimators_with_settings_of_their_own_are_paired():
    frame = logs()
    frame["lr"] = frame["estimator"].map({"ours": "0.1", "theirs": "0.3"})
    runs = of_accuracy(frame).runs
    assert sorted(set(runs["setting"])) == ["ours · lr=0.1", "theirs · lr=0.3"]
    row = comparison.differences(runs, "metric/accuracy", comparison.choose_baseline(runs, "theirs")).iloc[0]
    assert (row["n_pairs"], row["mean"]) == (3, pytest.approx(0.204))


def test_a_name_with_dots_is_short_unless_two_would_be_equal():
    frame = logs(lrs=("0.1", "0.2")).rename(columns={"lr": "training.lr"})
    assert "ours · lr=0.1" in set(of_accuracy(frame).runs["setting"])
    frame["decoder.lr"] = frame["training.lr"]
    assert "ours · training.lr=0.1 · decoder.lr=0.1" in set(of_accuracy(frame).runs["setting"])


def test_a_column_tau_is_the_temperature_of_the_schedule(tmp_path):
    runs = of_accuracy(logs(lrs=("0.1", "0.2")).rename(columns={"lr": "tau"}))
    assert sorted(set(runs.runs["schedule.tau"])) == [0.1, 0.2]
    assert "ours · tau=0.1" in set(runs.runs["setting"])
    again = from_csv(to_csv(runs, tmp_path / "logs.csv"))
    assert sorted(set(again.runs["setting"])) == sorted(set(runs.runs["setting"]))


def test_texts_that_look_alike_stay_apart():
    frame = logs()
    names = {"ours": "\u202eours", "theirs": "\\u202eours"}
    frame["estimator"] = frame["estimator"].map(names)
    runs = of_accuracy(frame).runs
    assert runs["setting"].nunique() == runs["run_key"].nunique() / 3 == 2


def test_epochs_without_steps_stand_for_steps_and_steps_alone_are_counted():
    runs = of_accuracy(logs(steps=(1, 3)).rename(columns={"step": "epoch"}))
    assert runs.history["step"].tolist()[:2] == [1, 3]
    assert any("Training steps are epochs" in note for note in runs.notes)
    assert runs.epochs_known
    runs = of_accuracy(logs(steps=(100, 300)))
    assert runs.history["epoch"].tolist()[:2] == [1, 2]
    assert not runs.epochs_known


def test_a_value_with_neither_step_nor_epoch_is_of_the_whole_run():
    frame = logs()
    whole = frame.drop_duplicates(["estimator", "seed"]).assign(step=np.nan, value=5.0)
    runs = of_accuracy(pd.concat([whole, frame]))
    assert set(runs.runs["metric/accuracy"]) == {5.0}
    assert set(runs.history.groupby("run_key").size()) == {2}


def test_a_run_that_failed_has_a_row_without_numbers_and_ranks_last():
    frame = logs().assign(status="", error="")
    failed = {"estimator": "ours", "seed": 3, "step": "", "metric": "", "value": "", "lr": "0.1", "status": "diverged",
              "error": "loss was nan"}  # fmt: skip
    runs = of_accuracy(pd.concat([frame, pd.DataFrame([failed])]))
    assert runs.runs["status"].value_counts().to_dict() == {"finished": 6, "diverged": 1}
    levels = comparison.levels(runs.runs, "metric/accuracy")
    assert levels["setting"].tolist() == ["theirs", "ours"]
    assert "loss was nan" in texts_of(runs)


def test_columns_may_declare_the_measures():
    frame = pd.concat([logs(better="higher", unit="%", band="0.05"), logs().assign(metric="other", value=1.0)])
    (declared,) = from_frame(frame).measures["logs"]
    assert (declared.name, declared.better, declared.unit, declared.band) == ("accuracy", "higher", "%", 0.05)


def test_losses_of_the_vae_are_known_by_their_names():
    frame = logs().assign(metric="test/neg_elbo")
    runs = from_frame(frame)
    assert runs.tasks == ["categorical_vae"]
    (declared,) = runs.measures["categorical_vae"]
    assert (declared.better, declared.band) == ("lower", 0.5)
    loss = from_frame(frame.assign(metric="train/loss", task="categorical_vae"), measure="train/loss")
    assert loss.measures["categorical_vae"][0].metric == "train/loss"


def test_a_measure_of_the_test_has_the_curve_of_the_validation():
    frame = pd.concat([logs().assign(metric="val/accuracy"), logs(steps=(20,)).assign(metric="test/accuracy")])
    runs = from_frame(frame, measure="test/accuracy", better="higher")
    assert Context(runs).curve.name == "val/accuracy"
    assert Context(runs).curve.better == "higher"


def test_every_task_has_its_measure():
    frame = pd.concat([
        logs(task="a", better="higher"), logs(task="b", better="lower").assign(metric="loss"),
    ])  # fmt: skip
    runs = from_frame(frame)
    assert {task: found[0].metric for task, found in runs.measures.items()} == {"a": "metric/accuracy",
                                                                               "b": "metric/loss"}  # fmt: skip
    assert Context(runs.of_task("b")).primary.better == "lower"


@pytest.mark.usefixtures("undrawn")
def test_sections_without_data_are_silent_and_claim_nothing():
    text = texts_of(of_accuracy(logs()), baseline="theirs")
    for line in ("The runs have no times", "No finished run has pictures", "none for this task", "Code unknown"):
        assert line in text
    for words in ("Seconds", "By training time", "shared the machine", "not from a git checkout", " nan "):
        assert words not in text


@pytest.mark.usefixtures("undrawn")
def test_values_of_whole_runs_alone_have_no_curves():
    text = texts_of(of_accuracy(logs(steps=(20,)).assign(step="")))
    assert "values at their end alone, so there are no curves" in text
    assert "Time to target The runs have values at their end alone." in text


def test_times_count_as_contended_unless_the_logs_say_that_the_machine_was_alone():
    timed = logs().assign(elapsed_s=1.0)
    assert of_accuracy(timed).runs["shared_machine"].all()
    assert not of_accuracy(timed.assign(shared_machine=False)).runs["shared_machine"].any()


def test_the_report_of_a_csv_is_the_same_bytes_in_any_folder(tmp_path):
    pages = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        logs().to_csv(folder / "mine.csv", index=False)
        runs = from_csv(folder / "mine.csv", measure="accuracy", better="higher")
        context = Context(runs)
        pages.append(report.render(context, [section(context) for section in SECTIONS]))
    assert pages[0] == pages[1]
    assert "harness report --from-csv mine.csv --metric accuracy --better higher" in pages[0]


def test_a_csv_with_a_mark_quotes_line_breaks_and_empty_lines_is_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(
        '\ufeffestimator,seed,epoch,metric,value\r\n\r\n"a\n(b, c)",0,1,loss,2\r\n\'=d,0,1,loss,3\r\n'.encode()
    )
    runs = from_csv(path, measure="loss", better="lower")
    assert set(runs.runs["estimator"]) == {"a\\n(b, c)", "=d"}


EXPORTED = {
    "the grid of the VAE": lambda: in_memory(main_grid()),
    "two axes": lambda: in_memory([
        Planned("gumbel_softmax", "constant", seed, params={"training.lr": lr}, axis=f"lr={lr}", shift=100 * lr)
        for seed in range(3) for lr in (0.001, 0.01)
    ]),
    "a missing run": lambda: in_memory([
        *planned("rloo", seeds=(0, 1)), *planned("rloo", seeds=(2,), status="missing")
    ]),
    "another task, higher is better": lambda: task_runs(
        FakeTask("puzzle", [measure("score", "higher", band=2.0)], 0, -1), planned("rloo", "reinforce", seeds=range(3))
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPORTED)
def test_an_export_of_our_own_gives_the_same_tables(case, tmp_path):
    ours = EXPORTED[case]()
    theirs = from_csv(to_csv(ours, tmp_path / "demo.csv"))
    one, other = Context(ours), Context(theirs)
    for metric in one.metrics:
        for made in ("levels", "differences"):
            found = [getattr(context, made)(metric) for context in (one, other)]
            pd.testing.assert_frame_equal(*found, check_dtype=False, rtol=1e-12)
    assert ours.measures == theirs.measures
    same = [name for name in ours.runs if re.fullmatch(r"setting|status|seed|task_label|[a-z]+\.[a-z_]+", name)]
    known = ours.runs["status"] != "missing"  # one that is gets the settings of the others
    pd.testing.assert_frame_equal(ours.runs.loc[known, same], theirs.runs.loc[known, same], check_dtype=False)
    left, right = (each.history.drop(columns="run_key") for each in (ours, theirs))
    pd.testing.assert_frame_equal(left, right[left.columns], check_dtype=False)
    assert to_csv(theirs, tmp_path / "again.csv").read_bytes() == (tmp_path / "demo.csv").read_bytes()


def test_what_is_not_finite_is_left_out_of_an_export(tmp_path):
    ours = in_memory(planned("rloo", seeds=(0, 1)))
    history = ours.history.copy()
    history.loc[0, "val/loss"] = np.inf
    frame = log_export.to_frame(dataclasses.replace(ours, history=history))
    assert np.isfinite(frame["value"]).all()
    assert len(log_export.to_frame(ours)) == len(frame) + 1


def test_labels_that_a_spreadsheet_would_calculate_survive_an_export(tmp_path):
    ours = in_memory(planned("=1+1", "'=1+1", "-x", seeds=(0, 1)))
    path = to_csv(ours, tmp_path / "demo.csv")
    assert not re.search(r"^[=+@-]", path.read_text(), re.MULTILINE)
    assert set(from_csv(path).runs["estimator"]) == {"=1+1", "'=1+1", "-x"}


def test_a_direction_of_two_columns_and_the_argument_must_agree():
    with pytest.raises(ReportError, match=r"^better: expected higher, as frame says, got lower"):
        from_frame(logs(better="higher"), measure="accuracy", better="lower")
