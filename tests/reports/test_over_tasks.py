"""A sweep over several tasks: a page of each, ranks over all of them, and nothing paired between two of them."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from report_page import Page
from reports_store import Planned, in_memory, planned
from task_runs import CURVE, DIGITS, DISTANCE, FakeTask, task_runs
from undrawn import figures_undrawn

from reports import comparison
from reports import statistics as st
from reports.comparison.over_tasks import TaskLevels, as_frame, every_setting, rank_over
from reports.contract.errors import ReportError
from reports.page.context import Context, Options
from reports.report import _folder_names, build_report, options_by_task
from reports.sections import over_tasks

pytestmark = pytest.mark.usefixtures("undrawn")


def grid(**more):
    return planned("gumbel_softmax", "straight_through", "rloo", seeds=range(3), **more)


def with_status(runs, status, estimator, *seeds):
    return [dataclasses.replace(run, status=status) if run.estimator == estimator and run.seed in seeds else run
            for run in runs]  # fmt: skip


def levels_of(runs):
    found = {}
    for label in runs.tasks:
        frame = runs.of_task(label).runs
        metric = comparison.metrics(frame)[0]
        found[label] = TaskLevels(metric, comparison.levels(frame, metric))
    return found


@pytest.fixture(scope="module")
def runs():
    """Two tasks of opposite directions; one estimator is better on the second, and one is on the first alone."""
    curve = [dataclasses.replace(run, shift=-20.0 if run.estimator == "rloo" else 0.0) for run in grid()]
    return task_runs({DIGITS: [*grid(), *planned("reinforce", seeds=range(3))], CURVE: curve})


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks")
    with figures_undrawn():
        build_report(runs, out)
    return out


def test_ranks_are_within_a_task_in_its_direction(runs):
    ranks = rank_over(levels_of(runs))
    assert [key[0] for key in ranks.keys] == ["gumbel_softmax · constant(1)", "rloo", "straight_through · constant(1)"]
    assert ranks.table.tolist() == [[1, 3, 2], [2, 1, 3]]  # accuracy: gumbel best; distance: rloo best
    assert ranks.means.tolist() == [1.5, 2.0, 2.5]
    assert ranks.p == pytest.approx(st.friedman(np.array([[1, 3, 2], [2, 1, 3]])))
    assert ranks.least_p == pytest.approx(st.friedman(np.array([[1, 2, 3], [1, 2, 3]])))
    assert ranks.distance is None


def test_settings_that_a_task_lacks_are_not_ranked(runs):
    tasks = levels_of(runs)
    ranks = rank_over(tasks)
    assert ("reinforce", "cpu") in every_setting(tasks)
    assert ("reinforce", "cpu") not in ranks.keys
    frame = as_frame(tasks, ranks).set_index(["task", "setting"])
    assert math.isnan(frame.loc[("mnist_sum", "reinforce"), "rank"])
    assert ("polynomial", "reinforce") not in frame.index
    assert frame["better"].groupby(level=0).unique().map(list).to_dict() == {
        "mnist_sum": ["higher"], "polynomial": ["lower"],
    }  # fmt: skip
    assert frame.loc[("polynomial", "rloo"), ["rank", "mean_rank", "unit", "better"]].tolist() == [
        1,
        2,
        "mm",
        "lower",
    ]


def test_failed_runs_rank_last_on_their_task_by_their_share():
    digits = with_status(with_status(grid(), "failed", "gumbel_softmax", 0), "diverged", "straight_through", 0, 1, 2)
    ranks = rank_over(levels_of(task_runs({DIGITS: digits, CURVE: grid()})))
    at = {key[0].partition(" ")[0]: number for number, key in enumerate(ranks.keys)}
    assert ranks.table[0][[at["rloo"], at["gumbel_softmax"], at["straight_through"]]].tolist() == [1, 2, 3]


def test_equal_settings_share_a_rank():
    twins = [Planned("rloo", "none", s, estimator_params={"n_samples": n}) for n in (2, 4) for s in range(2)]
    ranks = rank_over(levels_of(task_runs({DIGITS: twins, CURVE: twins})))
    assert ranks.table.tolist() == [[1.5, 1.5], [1.5, 1.5]]
    assert over_tasks.best_over(ranks).startswith(
        "rloo(n_samples=2) and rloo(n_samples=4) have the best mean rank of 2"
    )


def test_six_tasks_have_a_critical_difference():
    tasks = {FakeTask(f"t{i}", [DISTANCE], i, 1): grid() for i in range(6)}
    ranks = rank_over(levels_of(task_runs(tasks)))
    assert ranks.distance == pytest.approx(st.critical_difference(3, 6))
    text = over_tasks.few_blocks(ranks, [f"t{i}" for i in range(6)])
    assert f"Two mean ranks differ if they are {ranks.distance:.2f} or more apart" in text
    assert "has not been checked" not in text


def test_few_tasks_say_how_little_they_show(runs):
    text = over_tasks.few_blocks(rank_over(levels_of(runs)), runs.tasks)
    assert text.startswith("2 tasks are 2 independent blocks, whatever the number of seeds.")
    assert "the smallest p that it can give here is .135" in text
    assert "read the ranks as a description of these tasks, not as evidence about others" in text
    assert "hardly independent" not in text
    again = over_tasks.few_blocks(rank_over(levels_of(runs)), ["polynomial(p=2)", "polynomial(p=1.5)"])
    assert again.startswith("2 tasks are 2 blocks, whatever the number of seeds.")
    assert "Tasks of one name with other parameters (polynomial) are hardly independent of each other" in again
    assert "do not rely on it" in again


def test_seeds_of_a_task_add_no_blocks(runs):
    more = task_runs({DIGITS: planned("gumbel_softmax", "straight_through", "rloo", seeds=range(9)), CURVE: grid()})
    assert rank_over(levels_of(more)).table.shape == (2, 3)


def test_nothing_is_paired_between_two_tasks(runs):
    for label in runs.tasks:
        context = Context(runs.of_task(label))
        frame = context.differences(context.primary)
        assert set(frame["n_pairs"]) == {3}
        mine = runs.runs[runs.runs["task_label"] == label]
        expected = mine.pivot_table(index="seed", columns="setting", values=context.primary.name)
        for row in frame.to_dict("records"):
            assert row["mean"] == pytest.approx((expected[row["setting"]] - expected[row["versus"]]).mean())
    with pytest.raises(ReportError, match="expected runs of one task"):
        comparison.differences(runs.runs, "test/accuracy", comparison.choose_baseline(runs.runs, None))


def test_each_task_has_a_report_of_its_own(runs, folder):
    pages = {path.parent.name for path in folder.glob("tasks/*/report.html")}
    assert pages == {"mnist_sum", "polynomial"}
    page = Page((folder / "tasks" / "polynomial" / "report.html").read_text())
    assert "tasks: polynomial" in page.text
    assert "lowest mean of 3 settings" in page.text
    assert "accuracy" not in page.text
    assert "task=" not in page.text
    assert ("href", "../../report.html") in page.attributes
    table = pd.read_csv(folder / "tasks" / "mnist_sum" / "tables" / "quality.csv")
    assert set(table["metric"]) == {"test/accuracy", "test/sum_accuracy"}


def test_the_page_over_tasks_links_to_each_and_has_all_ranks(runs, folder):
    page = Page((folder / "report.html").read_text())
    links = {value for name, value in page.attributes if name == "href" and not value.startswith(("#", "data:"))}
    assert links == {"tasks/mnist_sum/report.html", "tasks/polynomial/report.html"}
    assert all((folder / link).is_file() for link in links)
    assert "gumbel_softmax · constant(1) has the best mean rank of 3 settings over 2 tasks, 1.50." in page.text
    assert "has the highest mean of 4 settings" in page.text
    assert "has the lowest mean of 3 settings" in page.text
    assert "Not ranked, because they were not tried on every task: reinforce." in page.text
    ids = [value for name, value in page.attributes if name == "id"]
    anchors = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")}
    assert anchors <= set(ids)
    assert len(ids) == len(set(ids))
    frame = pd.read_csv(folder / "tables" / "ranks.csv")
    assert frame.groupby("task")["rank"].apply(lambda each: sorted(each.dropna())).tolist() == [[1, 2, 3], [1, 2, 3]]
    assert (folder / "figures" / "ranks.svg").is_file()
    stored = pd.read_parquet(folder / "tables" / "runs.parquet")
    assert set(stored["task_label"]) == set(runs.tasks)


def test_the_same_runs_give_the_same_bytes(runs, folder, tmp_path):
    build_report(runs, tmp_path)
    for name in ("report.html", "tables/ranks.csv", "tasks/mnist_sum/report.html"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_an_estimator_has_one_colour_on_all_pages(runs):
    parts = [Context(runs.of_task(label), coloured=runs.runs) for label in runs.tasks]
    assert {name: style.colour for name, style in parts[1].styles.items()} == {
        name: parts[0].styles[name].colour for name in parts[1].styles
    }
    assert "reinforce" not in parts[1].styles


def test_pages_of_tasks_that_are_gone_are_removed(runs, tmp_path):
    build_report(runs, tmp_path)
    mine = tmp_path / "tasks" / "mnist_sum" / "tables" / "mine.csv"
    mine.write_text("mine")
    build_report(runs.of_task("polynomial"), tmp_path)
    assert not list(tmp_path.glob("tasks/*/report.html"))
    assert [path.name for path in (tmp_path / "tasks" / "mnist_sum").rglob("*.csv")] == ["mine.csv"]


def test_a_task_without_a_finished_run_is_shown_as_such(tmp_path):
    runs = task_runs({DIGITS: grid(), CURVE: grid(status="failed", error="no")})
    page = Page(build_report(runs, tmp_path).read_text())
    assert "No run finished , so there is nothing to compare." in page.text
    assert "Fewer than two tasks have a finished run" in page.text


def test_tasks_without_a_common_setting_have_no_ranks(tmp_path):
    runs = task_runs({DIGITS: planned("rloo", seeds=(0, 1)), CURVE: planned("reinforce", seeds=(0, 1))})
    page = Page(build_report(runs, tmp_path).read_text())
    assert "No setting was tried to the end on every task, so there are no ranks." in page.text
    assert "best mean rank" not in page.text


def test_the_vae_can_be_one_of_the_tasks(tmp_path):
    vae = FakeTask("categorical_vae", [
        {"name": "neg_elbo", "title": "−ELBO", "unit": "nats per image", "better": "lower", "band": 0.5,
         "metric": "test/neg_elbo", "validation": "val/loss"}], 0, 1)  # fmt: skip
    runs = task_runs({vae: grid(), DIGITS: grid()})
    build_report(runs, tmp_path)
    page = Page((tmp_path / "tasks" / "categorical_vae" / "report.html").read_text())
    assert "nats per example (95 % t-interval" in page.text
    assert "Negative ELBO" in page.text
    other = Page((tmp_path / "tasks" / "mnist_sum" / "report.html").read_text())
    assert "nats" not in other.text


def test_options_that_do_not_fit_every_task_are_named(runs):
    parts = {label: runs.of_task(label) for label in runs.tasks}
    fitting, notes = options_by_task(parts, Options(metric="test/distance", baseline="reinforce"))
    assert (fitting["mnist_sum"].metric, fitting["polynomial"].metric) == (None, "test/distance")
    assert (fitting["mnist_sum"].baseline, fitting["polynomial"].baseline) == ("reinforce", None)
    assert notes == [
        "--metric test/distance is not possible for mnist_sum, where the default is used.",
        "--baseline reinforce is not possible for polynomial, where the default is used.",
    ]
    assert fitting["mnist_sum"].title == "tasks: mnist_sum"
    with pytest.raises(ReportError, match=r"^--metric: expected one of"):
        options_by_task(parts, Options(metric="test/neg_elbo"))
    with pytest.raises(ReportError, match=r"^baseline: expected one of .*; got 'nope'"):
        options_by_task(parts, Options(baseline="nope"))


def test_a_band_needs_one_unit(runs):
    parts = {label: runs.of_task(label) for label in runs.tasks}
    with pytest.raises(ReportError, match=r"^--band: expected tasks with one unit, got mnist_sum: no unit, poly"):
        options_by_task(parts, Options(band=0.1))
    twice = dict.fromkeys(("a", "b"), parts["polynomial"])
    fitting, _ = options_by_task(twice, Options(band=0.1))
    assert {options.band for options in fitting.values()} == {0.1}


def test_groups_are_ranked_over_tasks(runs, tmp_path):
    page = Page(build_report(runs, tmp_path, Options(group_by="estimator")).read_text())
    assert "gumbel_softmax has the best mean rank of 3 settings over 2 tasks" in page.text


def test_folders_of_tasks_have_different_names_that_every_system_takes():
    found = _folder_names(["polynomial(p=2)", "polynomial[p=2]", "a/b", "..", "A/B", "é" * 300])
    assert len({name.casefold() for name in found.values()}) == 6
    assert all(
        set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") and name.strip(".") for name in found.values()
    )
    assert _folder_names(["mnist_sum", "polynomial(p=1.5)"]) == {
        "mnist_sum": "mnist_sum", "polynomial(p=1.5)": "polynomial-p-1.5",
    }  # fmt: skip


def test_one_task_is_a_report_as_before(tmp_path):
    path = build_report(in_memory(grid()), tmp_path)
    assert path == tmp_path / "report.html"
    assert not (tmp_path / "tasks").exists()
    assert "all tasks" not in path.read_text()


def test_parameters_of_a_task_make_tasks_of_their_own(tmp_path):
    """As `task: {name: polynomial, p: [1.5, 2]}` does, beside a swept field of another section."""
    powers = [dataclasses.replace(CURVE, params={"task.p": p, "task.n": 3}) for p in (1.5, 2)]
    runs_of = [Planned("rloo", "none", s, params={"training.lr": lr}, axis=f"lr={lr}")
               for lr in (0.1, 0.2) for s in range(2)]  # fmt: skip
    runs = task_runs({power: [*runs_of, Planned("rloo", "none", 9, status="missing")] for power in powers})
    assert runs.tasks == ["polynomial(p=1.5)", "polynomial(p=2)"]
    assert set(runs.runs["setting"]) == {"rloo · lr=0.1", "rloo · lr=0.2", "rloo"}
    assert runs.runs.groupby("task_label")["status"].apply(lambda each: sorted(set(each))).tolist() == [
        ["finished", "missing"], ["finished", "missing"],
    ]  # fmt: skip
    page = Page(build_report(runs, tmp_path).read_text())
    assert "Tasks of one name with other parameters (polynomial) are hardly independent" in page.text
    assert (tmp_path / "tasks" / "polynomial-p-1.5" / "report.html").is_file()


def test_tasks_that_share_a_parameter_have_it_in_their_labels_where_it_differs():
    other = FakeTask("sudoku", [DISTANCE], 0, 1, {"task.p": 7})
    powers = [dataclasses.replace(CURVE, params={"task.p": p}) for p in (1.5, 2)]
    runs = task_runs({task: planned("rloo") for task in (*powers, other)})
    assert runs.tasks == ["polynomial(p=1.5)", "polynomial(p=2)", "sudoku"]
    assert set(runs.runs["setting"]) == {"rloo"}


def test_another_field_with_the_name_of_a_parameter_stays_in_the_setting():
    tasks = [dataclasses.replace(CURVE, params={"task.lr": lr}) for lr in (1, 2)]
    runs_of = [Planned("rloo", "none", 0, params={"training.lr": lr}, axis=f"lr={lr}") for lr in (0.1, 0.2)]
    runs = task_runs(dict.fromkeys(tasks, runs_of))
    assert runs.tasks == ["polynomial(lr=1)", "polynomial(lr=2)"]
    assert set(runs.runs["setting"]) == {"rloo · lr=0.1", "rloo · lr=0.2"}
