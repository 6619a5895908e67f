"""A tuned sweep from start to end: what is chosen, what is stored, and that a cut sweep ends with the same results."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from command_line import harness
from empty_store import add_empty_store
from killed_sweeps import environment, journal_of, results

import reports
from harness.storage.journal import Journal
from reports.report import build_report
from reports.store.load import Runs

VAE = """
name: killed
data: {{train_size: 200}}
model: {{n_latents: 2, n_categories: 3, hidden: [8]}}
training: {{epochs: {epochs}, batch_size: 50}}
evaluation: {{bound_samples: 0, n_images: 2}}
estimators: [straight_through, {{name: rloo, n_samples: 2}}]
seeds: [0, 1]
tune: {{trials: 4, space: {{training.lr: {{log: [1e-4, 0.1]}}, schedule.tau: {{uniform: [0.5, 2]}}}}}}
"""
N_TRIALS, N_FINAL = 8, 8  # two estimators, four trials each; tuned and default with two seeds


def arguments(folder: Path, out: Path) -> list[str]:
    return ["run", "--grid", str(folder / "killed.yaml"), "--out", str(out)]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A folder with the grid, and the results of an undisturbed sweep below it."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "killed.yaml").write_text(VAE.format(epochs=2))
    add_empty_store(folder / "reference")
    done = harness(*arguments(folder, folder / "reference"), COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said").write_text(done.stdout + done.stderr)
    return folder


def test_the_final_runs_have_the_settings_of_the_best_trials_on_validation(tuned):
    runs = reports.load("killed", f"sqlite:///{tuned / 'reference' / 'mlflow.db'}")
    trials, defaults = runs.tuning.trials, runs.tuning.defaults
    assert (len(trials), len(runs.runs), len(defaults)) == (N_TRIALS, 4, 4)
    for competitor, group in trials.groupby("competitor"):
        best = group.loc[group["val/loss"].idxmin()]
        mine = runs.runs[runs.runs["competitor"] == competitor]
        assert list(mine["training.lr"].unique()) == [best["training.lr"]]
        assert sorted(mine["seed"]) == [0, 1]
        assert set(mine["role"]) == {"tuned"}
    assert set(defaults["training.lr"]) == {0.001}
    assert runs.tuning.space["training.lr"] == {"scale": "log", "low": 1e-4, "high": 0.1}
    assert "test/neg_elbo" not in trials
    assert "training.lr" in str(runs.tuning)


def test_trials_see_validation_data_alone_and_make_no_pictures(tuned):
    events = journal_of(tuned / "reference")
    ends = {event["run_key"]: event for event in events if event["kind"] == "finished"}
    trials = {key for key, event in ends.items() if not any(name.startswith("test/") for name in event["metrics"])}
    assert len(trials) == N_TRIALS
    assert not [event for event in events if event["kind"] in ("image", "latents") and event["run_key"] in trials]
    last = {event["run_key"]: event["metrics"]["val/loss"] for event in events if event["kind"] == "epoch"}
    assert all(ends[key]["metrics"]["val/loss"] == last[key] for key in trials)


def test_the_terminal_names_what_was_chosen_and_ranks_final_runs_alone(tuned):
    said = (tuned / "said").read_text()
    assert said.count("chosen of 4 trials: ") == 2
    assert "validation −ELBO" in said
    assert f"{N_TRIALS + N_FINAL} finished." in said
    document = json.loads(harness("status", "--json", *arguments(tuned, tuned / "reference")[1:]).stdout)
    assert len(document["ranking"]) == 4
    assert len(document["runs"]) == N_TRIALS + N_FINAL
    again = harness(*arguments(tuned, tuned / "reference"))
    assert "0 runs to do" in again.stdout + again.stderr
    assert "starting" not in again.stdout  # no worker for nothing
    assert again.stdout.count("chosen of 4 trials: ") == 2
    assert "grid changed" not in again.stdout + again.stderr


def test_the_dry_run_says_how_many_runs_there_may_be(tuned, tmp_path):
    said = harness(*arguments(tuned, tmp_path), "--dry-run").stdout
    assert "8 runs, 8 to do here" in said
    assert "12 to 16 runs in all, since the results decide" in said


@pytest.mark.parametrize("cut", [3, 7, 8, 9, 13])
def test_a_sweep_that_was_cut_ends_with_the_same_runs_and_numbers(tuned, tmp_path, cut):
    """After so many ends of runs, everything else of journal and store is lost."""
    out = tmp_path / "out"
    add_empty_store(out)
    path = tuned / "reference" / "killed" / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if '"kind": "finished"' in line]
    (out / "killed").mkdir(parents=True)
    (out / "killed" / "journal.jsonl").write_text("".join(lines[: ends[cut - 1] + 1]))
    done = harness(*arguments(tuned, out), COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(out) == results(tuned / "reference")


def test_failed_trials_are_worst_and_a_competitor_without_a_trial_has_no_tuned_runs(tmp_path, out, monkeypatch):
    """With the largest learning rates everything diverges."""
    text = VAE.format(epochs=1).replace("log: [1e-4, 0.1]", "log: [1e30, 1e35]").replace("n_images: 2", "n_images: 0")
    (tmp_path / "killed.yaml").write_text(text)
    done = harness(*arguments(tmp_path, out), COLUMNS="200")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "rloo(n_samples=2): all 4 trials failed, so it has no tuned runs" in said
    assert len(results(out)) == 4  # the defaults


def test_the_report_shows_what_tuning_found(tuned, tmp_path):
    runs = reports.load("killed", f"sqlite:///{tuned / 'reference' / 'mlflow.db'}")
    page = build_report(runs, tmp_path).read_text()
    assert page == build_report(runs, tmp_path).read_text()
    table = pd.read_csv(tmp_path / "tables" / "tuning.csv")
    trials = runs.tuning.trials
    for _, row in table.iterrows():
        mine = trials.loc[trials["competitor"] == row["competitor"], "val/loss"]
        assert row["best"] == pytest.approx(mine.min())
        assert row["loss"] == pytest.approx(mine.median() - mine.min())
        assert row["n_trials"] == 4
    gain = pd.read_csv(tmp_path / "tables" / "tuned-default.csv").set_index("competitor")
    for competitor, group in runs.runs.groupby("competitor"):
        default = runs.tuning.defaults[runs.tuning.defaults["competitor"] == competitor]
        expected = group["test/neg_elbo"].mean() - default["test/neg_elbo"].mean()
        assert gain.loc[competitor, "difference"] == pytest.approx(expected)
    assert "Best of n trials" in page
    assert ("is at the border of" in page) == any(
        lr < 1.5e-4 or lr > 0.07 for lr in runs.runs["training.lr"].unique()
    ) or "schedule.tau" in page


def test_a_race_stops_and_its_report_says_when(tmp_path, out):
    """The deterministic argmax is far behind; two copies of one estimator are within any band."""
    text = VAE.partition("estimators")[0].format(epochs=1) + (
        "estimators: [straight_through, {name: straight_through, n_samples: 2}, argmax_ste]\n"
        "seeds: {until: decided, at_least: 3, at_most: 6, band: 50}\n"
    )
    (tmp_path / "killed.yaml").write_text(text)
    done = harness(*arguments(tmp_path, out), COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = reports.load("killed", f"sqlite:///{out / 'mlflow.db'}")
    assert 9 <= len(runs.runs) <= 18
    build_report(runs, tmp_path / "report")
    table = pd.read_csv(tmp_path / "report" / "tables" / "race.csv")
    assert table["seeds"].max() == runs.runs["seed"].nunique()
    assert sorted(table["setting"]) == sorted(runs.runs["setting"].unique())
    assert ("decided after" in done.stdout) or ("not decided" in done.stdout)
    assert_report_of_a_sweep_cut_within_a_seed(runs, tmp_path / "cut")


def assert_report_of_a_sweep_cut_within_a_seed(runs: Runs, folder: Path) -> None:
    """With two of three runs of the third seed there is nothing to decide, and the report says so."""
    third = runs.runs["seed"] == 2
    kept = (runs.runs["seed"] < 2) | (third & (third.cumsum() <= 2))
    page = build_report(replace(runs, runs=runs.runs[kept].reset_index(drop=True)), folder).read_text()
    assert "The first 3 seeds of at least two settings are not complete yet." in page


def test_only_is_refused(tuned, tmp_path):
    done = harness(*arguments(tuned, tmp_path), "--only", "estimator=rloo")
    assert done.returncode == 2
    assert "--only: expected a grid whose runs are all known, got one that grows with its results." in done.stderr


RACE = VAE.partition("seeds:")[0] + "seeds: {{until: decided, at_least: 2, at_most: 12, band: 0.01}}\n"


@pytest.mark.slow  # ten starts of a driver with two workers
@pytest.mark.parametrize("grid", [VAE, RACE], ids=["tuned", "until decided"])
def test_a_growing_sweep_is_killed_again_and_again(tmp_path: Path, out: Path, grid: str) -> None:
    (tmp_path / "killed.yaml").write_text(grid.format(epochs=60))
    add_empty_store(tmp_path / "reference")
    assert harness(*arguments(tmp_path, tmp_path / "reference")).returncode == 0
    chance = random.Random(3)  # noqa: S311
    killed = 0
    for _ in range(10):
        command = [sys.executable, "-m", "harness.cli", *arguments(tmp_path, out), "--checkpoint-every", "2epochs"]
        process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL, env=environment())
        path, before = out / "killed" / "journal.jsonl", n_ends(out)
        while process.poll() is None and n_ends(out) <= before:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert path.exists()
    assert killed > 5
    assert harness(*arguments(tmp_path, out)).returncode == 0
    assert results(out) == results(tmp_path / "reference")
    assert len(list(Journal(out / "killed").read())) > 0


def n_ends(out: Path) -> int:
    path = out / "killed" / "journal.jsonl"
    return path.read_bytes().count(b'"kind": "finished"') if path.exists() else 0
