"""`harness report` on stored sweeps: after edits of a grid or plugin, of several experiments, compared, and watched."""

import dataclasses
import re
import sqlite3
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from report_page import Page
from reports_store import Planned, StoreWriter, neg_elbo
from undrawn import figures_undrawn

from harness.cli import cli, main
from harness.commands import report as report_command
from reports import load
from reports.contract.errors import ReportError
from reports.store.frame import mark_outdated, tidy


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A results folder with the sweeps before, after and edited."""
    folder = tmp_path_factory.mktemp("results")
    writer = StoreWriter(folder)
    runs = [Planned(name, "constant", seed) for name in ("straight_through", "gumbel_softmax") for seed in range(3)]
    other = [dataclasses.replace(run, shift=-2.0 if run.estimator == "gumbel_softmax" else 0.0) for run in runs]
    writer.sweep("before", runs, epochs=2, images=False)
    writer.sweep("after", [*other, Planned("rloo", "none", 0, status="failed", error="boom")], epochs=2, images=False)
    writer.sweep("edited", [*runs, Planned("reinforce", "none", 0)], epochs=2, images=False)
    _plan_without(folder, "edited", "reinforce")
    return folder


def _plan_without(folder: Path, experiment: str, estimator: str) -> None:
    """Edit the plan of a sweep, as a sweep of an edited grid does."""
    import json

    with sqlite3.connect(folder / "mlflow.db") as database:
        ((uri,),) = database.execute(
            "SELECT artifact_uri FROM runs JOIN experiments e USING (experiment_id) JOIN tags USING (run_uuid)"
            " WHERE e.name = ? AND key = 'harness.kind' AND value = 'sweep'",
            (experiment,),
        ).fetchall()
    path = Path(uri.removeprefix("file://")) / "plan.json"
    path.write_text(json.dumps([entry for entry in json.loads(path.read_text()) if entry["estimator"] != estimator]))


def report(*arguments: object) -> str:
    with figures_undrawn():
        done = CliRunner().invoke(cli, ["report", *map(str, arguments)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def page_of(output: str) -> Page:
    return Page(Path(re.search(r"^report: (.*)$", output, re.MULTILINE)[1]).read_text())


def uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def test_runs_no_longer_in_the_grid_are_left_out_with_a_note(folder, tmp_path):
    page = page_of(report("--experiment", "edited", "--from", folder, "--out", tmp_path))
    assert "1 stored run is left out: no longer in the grid" in page.text
    assert "reinforce" not in page.text
    assert "6 planned" in page.text
    page = page_of(report("--experiment", "edited", "--from", folder, "--out", tmp_path, "--all"))
    assert "reinforce" in page.text


def record(key: str, source: str, seed: int = 0, estimator: str = "mine") -> dict[str, object]:
    label = f"{estimator} · constant(1)"
    return {"run_key": key, "run_id": key, "estimator": estimator, "estimator_label": estimator, "label": label,
            "schedule": "constant(1)", "device": "cpu", "seed": seed, "status": "finished", "error": "",
            "source": source, "estimator.source": source, "test/neg_elbo": 1.0}  # fmt: skip


class Plan:
    def __init__(self, *keys: str) -> None:
        self.plan = [{"run_key": key} for key in keys]


def test_the_previous_version_of_an_edited_plugin_is_a_setting_of_its_own():
    records = [record("new", "b" * 64), record("old", "a" * 64), record("st", "", estimator="straight_through")]
    found = tidy(mark_outdated(records, [Plan("new", "st")])).set_index("run_key")
    assert list(found["former"]) == [key == "old" for key in found.index]
    assert set(found["axes"]) == {""}
    assert found.loc["new", "setting"] == "mine · constant(1)"
    assert found.loc["old", "setting"] == "mine [version aaaaaaaa] · constant(1)"
    assert found.loc["old", "estimator"] == "mine"  # the same colour


def test_no_run_is_outdated_if_the_plan_lists_none_of_them():
    for plans in ([], [Plan()], [Plan("other")], [Plan("new"), Plan()]):
        assert not any(each["former"] for each in mark_outdated([record("new", ""), record("old", "")], plans))


def test_the_default_store_is_that_of_results_in_this_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReportError, match=r"expected a database, got no file at '.*/results/mlflow\.db'"):
        load("before")
    (tmp_path / "results").symlink_to(folder)
    assert len(load("before").runs) == 6


def test_several_experiments_are_one_frame(folder):
    runs = load(["before", "after"], uri(folder))
    assert runs.experiment == "before, after"
    assert set(runs.runs["experiment"]) == {"before", "after"}
    assert runs.runs["run_key"].is_unique  # what both have run counts once
    assert len(runs.runs) == 7


def test_frames_are_parquet_too_and_figures_pdf_if_asked_for(folder, tmp_path):
    runs = load("before", uri(folder))
    report("--experiment", "before", "--from", folder, "--out", tmp_path, "--pdf")
    kinds = {kind: {path.stem for path in (tmp_path / "figures").glob(f"*.{kind}")} for kind in ("svg", "pdf")}
    assert kinds["svg"] == kinds["pdf"] > {"verdict", "profile"}
    for name, frame in (("runs", runs.runs), ("history", runs.history)):
        stored = pd.read_parquet(tmp_path / "tables" / f"{name}.parquet")
        assert list(stored.columns) == list(frame.columns)
        assert len(stored) == len(frame) > 0
    assert stored["val/loss"].tolist() == runs.history["val/loss"].tolist()


def test_two_sweeps_are_compared_seed_by_seed(folder, tmp_path):
    output = report("--compare", "before", "after", "--from", folder, "--out", tmp_path)
    page = page_of(output)
    assert "Of 2 settings that both have: 1 better, 1 equal to the last bit." in page.text
    assert "Only in after: rloo · cpu." in page.text
    assert page.text.count("−2.00") >= 1
    changes = pd.read_csv(tmp_path / "tables" / "changes.csv").set_index("estimator")
    assert changes.loc["gumbel_softmax", "mean"] == pytest.approx(-2)
    assert bool(changes.loc["straight_through", "same"])
    level = sum(neg_elbo(Planned("gumbel_softmax", "constant", seed)) for seed in range(3)) / 3
    assert changes.loc["gumbel_softmax", "mean_1"] == pytest.approx(level)


def test_a_comparison_with_itself_is_equal_to_the_last_bit(folder, tmp_path):
    output = report("--compare", f"{folder}/before", "before", "--from", folder, "--out", tmp_path)
    assert "Of 2 settings that both have: 2 equal to the last bit." in page_of(output).text
    assert (
        "Code, packages and machine are the same, and the configurations of the runs that both have"
        in page_of(output).text
    )


def test_a_comparison_without_anything_in_common_says_so(folder, tmp_path):
    StoreWriter(tmp_path).sweep("alone", [Planned("rloo", "none", 0)], epochs=1, images=False)
    page = page_of(report("--compare", "before", f"{tmp_path}/alone", "--from", folder, "--out", tmp_path / "c"))
    assert "no setting in common" in page.text


def test_watching_builds_until_no_sweep_runs(folder, tmp_path, monkeypatch):
    waited: list[float] = []

    def end_of_the_sweep(seconds: float) -> None:
        waited.append(seconds)
        _set_status("FINISHED")

    def _set_status(status: str) -> None:
        with sqlite3.connect(folder / "mlflow.db") as database:
            database.execute(
                "UPDATE runs SET status = ? WHERE run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'harness.kind'"
                " AND value = 'sweep')",
                (status,),
            )

    _set_status("RUNNING")
    monkeypatch.setattr(report_command.time, "sleep", end_of_the_sweep)
    output = report("--experiment", "before", "--from", folder, "--out", tmp_path, "--watch", "7s")
    assert waited == [7]
    assert output.count("report: ") == 2
    assert output.count("6 finished") == 2
    assert '<meta http-equiv="refresh" content="7">' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "before", "after", "--watch"], "--compare: expected neither"),
        (["--ui-url", "javascript:alert(1)"], "--ui-url: expected http://… or https://…"),
        (["--group-by", "nothing"], "--group-by: expected one of"),
        (["--metric", "nothing"], "--metric: expected one of"),
        (["--baseline", "gumbel_sofmax"], "Did you mean 'gumbel_softmax'?"),
        (["--watch", "soon"], "expected a number and one of"),
    ],
)
def test_impossible_requests_are_one_line(folder, arguments, message, capfd):
    from harness.cli import main

    more = [] if "--compare" in arguments else ["--experiment", "before"]
    with pytest.raises(SystemExit) as ended:
        main(["report", *more, "--from", str(folder), *arguments])
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("tracking", "expected"),
    [
        (None, "http://127.0.0.1:5000"),
        ("sqlite:////x/mlflow.db", "http://127.0.0.1:5000"),
        ("https://user:secret@host:8443/mlflow/", "https://host:8443/mlflow"),
    ],
)
def test_links_lead_to_the_server_without_its_password(tracking, expected):
    assert report_command._ui_url(None, tracking) == expected
    assert report_command._ui_url("http://elsewhere", tracking) == "http://elsewhere"


def test_a_report_into_the_results_of_a_sweep_names_their_folder(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for results in ([], ["--from", str(tmp_path / "none")]):
        with pytest.raises(SystemExit) as end:
            main(["report", "--experiment", "before", *results, "--out", str(folder)])
        assert end.value.code == 2
        assert capsys.readouterr().err == (
            f"--out: expected a folder for the report, got the results {folder}. To report on them: --from {folder}\n"
        )
    with pytest.raises(SystemExit) as end:
        main(["report", "--from", str(tmp_path / "none")])
    assert end.value.code == 2
    assert "give the folder of its results (--from) or --tracking-uri" in capsys.readouterr().err


def test_an_export_and_the_report_about_it_have_the_same_tables(folder, tmp_path):
    report("--experiment", "before", "--from", folder, "--out", tmp_path / "ours", "--to-csv", tmp_path / "runs.csv")
    page = page_of(report("--from-csv", tmp_path / "runs.csv", "--out", tmp_path / "theirs"))
    assert "runs were read from runs.csv" in page.text
    for name in ("quality", "differences", "wins", "completeness"):
        ours, theirs = (tmp_path / which / "tables" / f"{name}.csv" for which in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_logs_of_others_take_the_measure_from_the_options(tmp_path):
    rows = [f"{name},{seed},{step},accuracy,{value + seed / 100 + step / 1000}"
            for name, value in (("ours", 0.9), ("theirs", 0.7)) for seed in range(3) for step in (1, 2)]  # fmt: skip
    (tmp_path / "mine.csv").write_text("\n".join(["estimator,seed,step,metric,value", *rows]))
    options = ("--from-csv", tmp_path / "mine.csv", "--metric", "accuracy", "--better", "higher", "--unit", "%")
    output = report(*options, "--from", tmp_path)
    assert str(tmp_path / "mine" / "report" / "report.html") in output
    assert "ours has the highest mean of 2 settings, 0.9120 %" in page_of(output).text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--better", "lower"), "--better and --unit: expected --from-csv with them."),
        (("--from-csv", "x.csv", "--watch"), "--from-csv: expected neither --experiment, --compare, --watch,"),
        (("--from-csv", "none.csv"), "none.csv: expected a file, got: No such file or directory."),
    ],
)
def test_logs_that_cannot_be_used_are_one_line_and_exit_2(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", *arguments])
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_and_its_export_have_the_same_tables(tmp_path):
    (tmp_path / "tiny.yaml").write_text("""
name: tiny
data: {name: mnist-mini, train_size: 100}
model: {n_latents: 2, n_categories: 3, hidden: [8]}
training: {epochs: 2, batch_size: 50, lr: [1e-3, 3e-3]}
evaluation: {bound_samples: 2, n_images: 0}
estimators: [straight_through, {name: rloo, n_samples: 2}]
seeds: {count: 2}
""")
    done = CliRunner().invoke(
        cli, ["run", "--grid", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path), "--workers", "1"]
    )
    assert done.exit_code == 0, done.output
    report("--experiment", "tiny", "--from", tmp_path, "--out", tmp_path / "ours", "--to-csv", tmp_path / "tiny.csv")
    report("--from-csv", tmp_path / "tiny.csv", "--out", tmp_path / "theirs")
    for name in ("quality", "differences", "wins", "completeness", "timings", "targets", "sensitivity"):
        ours, theirs = (tmp_path / which / "tables" / f"{name}.csv" for which in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes(), name
