"""The command line: exit codes, and one clear line for each mistake."""

import json
import re
import textwrap
import time
from pathlib import Path

import click
import pytest
from command_line import TINY, assert_refused, grid_file, harness, harness_process
from mlflow.tracking import MlflowClient

from estimators import REGISTRY
from harness.cli import main
from harness.commands.shared import Refused
from harness.grid.load import load_grid
from harness.train import train


@pytest.mark.usefixtures("undrawn")
def test_run_then_skip_then_report(tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path)
    first = harness_process("run", "--grid", grid, "--out", out, "--workers", 2)
    assert first.returncode == 0, first.stderr
    assert "tiny: 4 runs to do." in first.stdout
    assert "4 finished." in first.stdout
    table = first.stdout[first.stdout.index("test −ELBO, nats") : first.stdout.index("next: ")]
    assert max(map(len, table.splitlines())) <= 80

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    children = client.search_runs([experiment.experiment_id], filter_string="tags.`harness.kind` = 'run'")
    assert len(children) == 4
    assert {run.info.status for run in children} == {"FINISHED"}
    assert {run.data.tags["estimator"] for run in children} == {"straight_through", "gumbel_softmax"}
    values = {run.data.tags["run_key"]: run.data.metrics["test/neg_elbo"] for run in children}
    for run in load_grid(grid, REGISTRY).runs:  # the same numbers as in this process
        assert list(train(run, REGISTRY))[-1].metrics["test/neg_elbo"] == values[run.key]
    (parent,) = client.search_runs([experiment.experiment_id], filter_string="tags.`harness.kind` = 'sweep'")
    assert (parent.info.status, parent.data.tags["harness.n_finished"]) == ("FINISHED", "4")

    again = harness("run", "--grid", grid, "--out", out)
    assert again.returncode == 0
    assert "0 runs to do, 4 already done" in again.stdout
    assert len(client.search_runs([experiment.experiment_id])) == 5

    added = grid_file(tmp_path, TINY.replace("[0, 1]", "[0, 1, 2]"))
    assert "2 runs to do, 4 already done" in harness("run", "--grid", added, "--out", out, "--workers", 1).stdout
    children = client.search_runs([experiment.experiment_id], filter_string="tags.`harness.kind` = 'run'")
    assert len(children) == 6
    assert values.items() <= {run.data.tags["run_key"]: run.data.metrics["test/neg_elbo"] for run in children}.items()

    report = harness("report", "--from", out)
    assert report.returncode == 0, report.stderr
    page = Path(report.stdout.strip().removeprefix("report: "))
    assert page == out / "tiny" / "report" / "report.html"
    assert "straight_through" in page.read_text()
    uri = f"sqlite:///{out / 'mlflow.db'}"
    done = harness("report", "--experiment", "tiny", "--tracking-uri", uri, "--out", tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "report.html").read_text() == page.read_text()
    refused = harness("report", "--from", out, "--out", grid / "below-a-file")
    assert_refused(refused, "expected a folder to write to, got: .* Choose another --out")
    assert_refused(harness("report", "--from", out, "--experiment", "no"), "expected the name of a stored experiment")


def test_dry_run_prints_keys_status_count_and_time(tmp_path: Path, out: Path) -> None:
    done = harness("run", "--grid", grid_file(tmp_path), "--out", out, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(re.fullmatch(r"[0-9a-f]{16}  planned      \S.* · seed [01]", line) for line in lines[:4])
    assert re.search(r"^4 runs, 4 to do here: about .* with 2 workers", lines[-1])
    assert not (out / "tiny").exists()


def test_only_selects_runs(tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path)
    done = harness(
        "run", "--grid", grid, "--out", out, "--dry-run", "--only", "estimator=gumbel_softmax", "--only", "seed=1"
    )
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()[:-1]] == ["gumbel_softmax · constant(1) · seed 1"]
    assert harness("run", "--grid", grid, "--out", out, "--only", "estimator=gumbel_softmax").returncode == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (parent,) = client.search_runs([experiment], filter_string="tags.`harness.kind` = 'sweep'")
    assert parent.data.tags["harness.n_planned"] == "2"
    plan = json.loads(Path(client.download_artifacts(parent.info.run_id, "plan.json")).read_text())
    assert len(plan) == 4  # the whole grid, so that a report sees what is missing
    assert_refused(harness("run", "--grid", grid, "--only", "colour=red"), "--only: expected one of .*, got 'colour'")
    assert_refused(
        harness("run", "--grid", grid, "--only", "seed=7"), "--only: expected seed to be one of 0, 1, got '7'"
    )
    assert_refused(harness("run", "--grid", grid, "--only", "seed"), "--only: expected KEY=VALUE, got 'seed'")
    line = "got 'batch_size'. Did you mean 'training.batch_size'"
    assert_refused(harness("run", "--grid", grid, "--only", "batch_size=50"), re.escape(line))


def test_only_selects_tasks_by_name_label_and_parameter(tmp_path: Path, out: Path) -> None:
    text = "name: tasks\ntask: [categorical_vae, {name: polynomial, p: [2, 3]}]\nestimators: [rloo]\nseeds: [0]\n"
    grid = grid_file(tmp_path, text, "tasks.yaml")

    def chosen(condition: str) -> list[str]:
        done = harness("run", "--grid", grid, "--out", out, "--dry-run", "--only", condition, COLUMNS="200")
        assert done.returncode == 0, done.stderr
        return re.findall(r"task=(\S+)", done.stdout)

    assert chosen("task=polynomial") == ["polynomial(p=2)", "polynomial(p=3)"]
    assert chosen("task=polynomial(p=3)") == ["polynomial(p=3)"] == chosen("task.p=3.0")
    assert chosen("task=categorical_vae") == ["categorical_vae"]
    line = r"--only: expected task to be one of categorical_vae, polynomial\(p=2\), polynomial\(p=3\), got 'sudoku'"
    assert_refused(harness("run", "--grid", grid, "--only", "task=sudoku"), line)


def test_a_missing_device_is_skipped_with_its_reason(tmp_path: Path, out: Path) -> None:
    done = harness("run", "--grid", grid_file(tmp_path, TINY + "devices: [cpu, 'cuda:77']\n"), "--out", out)
    assert done.returncode == 0, done.stderr
    assert "4 finished, 4 skipped." in done.stdout
    assert re.search(r"skipped: cuda:77: .*\(.* and 3 more\)", done.stdout)


PLUGIN = """
    import torch
    from estimators import Pathwise

    class Fragile(Pathwise):
        "Fails at the seeds of an unlucky batch."
        name = "fragile"
        relaxes = True
        def __init__(self, *, tau: float = 1.0):
            super().__init__()
            self.tau = tau
        def sample(self, logits_BLK):
            if WHEN:
                raise RuntimeError("no luck")
            return (logits_BLK / self.tau).softmax(-1).unsqueeze(0)
"""


def test_a_failed_run_is_recorded_and_can_be_retried(tmp_path: Path, out: Path) -> None:
    plugin = tmp_path / "fragile.py"
    plugin.write_text(
        textwrap.dedent(PLUGIN.replace("WHEN", f"not __import__('pathlib').Path({str(tmp_path / 'ok')!r}).exists()"))
    )
    grid = grid_file(tmp_path, TINY.replace("gumbel_softmax]", "fragile]"))
    arguments = ("run", "--grid", grid, "--out", out, "--plugin", plugin, "--no-check")
    done = harness(*arguments)
    assert done.returncode == 1, done.stderr
    assert "2 finished, 2 failed." in done.stdout
    assert "failed: RuntimeError: no luck (fragile.py:14) (fragile" in done.stdout
    again = harness(*arguments)
    assert (again.returncode, "0 runs to do" in again.stdout) == (1, True)
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    failed = client.search_runs([experiment], filter_string="tags.`harness.status` = 'failed'")
    assert len(failed) == 2
    assert "RuntimeError: no luck" in Path(client.download_artifacts(failed[0].info.run_id, "error.txt")).read_text()
    (tmp_path / "ok").touch()
    retried = harness(*arguments, "--retry", "failed")
    assert retried.returncode == 0, retried.stderr
    assert "4 finished." in retried.stdout
    assert not client.search_runs([experiment], filter_string="tags.`harness.status` = 'failed'")


def test_fail_fast_stops_the_sweep(tmp_path: Path, out: Path) -> None:
    plugin = tmp_path / "fragile.py"
    plugin.write_text(textwrap.dedent(PLUGIN.replace("WHEN", "True")))
    grid = grid_file(
        tmp_path, TINY.replace("straight_through, gumbel_softmax", "fragile").replace("[0, 1]", "{count: 30}")
    )
    done = harness("run", "--grid", grid, "--out", out, "--plugin", plugin, "--no-check", "--fail-fast")
    assert done.returncode == 1
    assert re.search(r"1 failed", done.stdout)
    assert "planned" in done.stdout


def test_a_second_driver_is_refused(tmp_path: Path, out: Path) -> None:
    import fcntl

    (out / "tiny").mkdir()
    with (out / "tiny" / "driver.lock").open("w") as lock:
        lock.write("host, process 1, since then")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = harness("run", "--grid", grid_file(tmp_path), "--out", out)
    assert_refused(done, r"expected no other driver on this sweep, got one \(host, process 1, since then\)")


def test_sync_replays_a_lost_store(tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path)
    assert harness("run", "--grid", grid, "--out", out).returncode == 0
    other = f"sqlite:///{tmp_path / 'other.db'}"
    done = harness("sync", "--grid", grid, "--out", out, "--tracking-uri", other)
    assert done.stdout.strip() == f"tiny: 4 runs replayed into {other}, 0 were there already."
    done = harness("sync", "--grid", grid, "--out", out, "--tracking-uri", other)
    assert done.stdout.strip() == f"tiny: 0 runs replayed into {other}, 4 were there already."
    assert "4 finished." in harness("status", "--grid", grid, "--out", out).stdout


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("estimators: [gumbel_sofmax]\nseeds: [0]", r"g\.yaml:1:14: .*Did you mean 'gumbel_softmax'\?"),
        ("estimator: [rloo]\nestimators: [rloo]\nseeds: [0]", r"g\.yaml:1:1: .*Did you mean 'estimators'\?"),
        ("estimators: [rloo]\nseeds: []", r"g\.yaml:2:8: .*seed"),
        ("estimators: [rloo]\nseeds: [0, 0]", r"g\.yaml:\d+:\d+: .*"),
        ("estimators: [softmax]\nschedules: [{kind: constant, tau: 0}]\nseeds: [0]", r"g\.yaml:2:35: .*expected .*> 0"),
        ("estimators: [rloo]\nmodel: {n_categories: 1}\nseeds: [0]", r"g\.yaml:2:23: .*expected .*2.*got 1"),
        ("estimators: [rloo]\ntraining: {lr: fast}\nseeds: [0]", r"g\.yaml:2:16: .*lr.*got 'fast'"),
        ("estimators: [exact]\nseeds: [0]", r"g\.yaml:1:14: .*10\^20|exact"),
        ("", r"g\.yaml.*empty"),
        ("{[", r"g\.yaml:1:\d+: "),
        ("estimators: [rloo]\nseeds: [0]\ndata: {name: mnist}", r"mnist: expected files in .*harness data fetch mnist"),
    ],
)  # fmt: skip
def test_bad_grids_are_one_line_each(tmp_path: Path, text: str, pattern: str) -> None:
    path = grid_file(tmp_path, text, "g.yaml")
    assert_refused(harness("run", "--grid", path, HARNESS_DATA_DIR=str(tmp_path / "data")), pattern)


def test_a_missing_or_binary_grid_is_one_line(tmp_path: Path) -> None:
    assert_refused(harness_process("run", "--grid", tmp_path / "none.yaml"), r"none\.yaml")
    assert_refused(harness("run", "--grid", tmp_path), str(tmp_path))
    (tmp_path / "b.yaml").write_bytes(bytes(range(256)))
    assert_refused(harness("run", "--grid", tmp_path / "b.yaml"), r"b\.yaml")


def test_a_plugin_that_does_not_import_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1\n1 / 0\n")
    done = harness("run", "--grid", grid_file(tmp_path), "--plugin", tmp_path / "bad.py")
    assert_refused(done, r"bad\.py:2: .*ZeroDivisionError")


def test_a_server_that_does_not_answer_is_reported_once_and_the_sweep_continues(tmp_path: Path, out: Path) -> None:
    done = harness("run", "--grid", grid_file(tmp_path), "--out", out, "--tracking-uri", "http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("expected an MLflow server at http://127.0.0.1:9") == 1
    assert "4 finished." in done.stdout
    assert re.search(rf"^next: harness sync --grid \S+tiny.yaml --out {out} --tracking-uri \S+$", done.stdout, re.M)
    refused = harness("run", "--grid", grid_file(tmp_path), "--out", out, "--tracking-uri", "nonsense://x")
    assert_refused(refused, "tracking: expected an MLflow store at nonsense://x")


def test_an_output_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = harness("run", "--grid", grid_file(tmp_path), "--out", tmp_path / "file" / "sub")
    assert_refused(done, r"expected a folder to write to, got: .*Choose another with --out")


def test_reports_and_ui_without_a_store_are_one_line(tmp_path: Path) -> None:
    for command, option in (("report", "--from"), ("ui", "--out")):
        assert_refused(harness(command, option, tmp_path / "nothing"), "expected an MLflow store, got none")


@pytest.mark.parametrize("what", ["estimators", "schedules", "datasets", "grids"])
def test_lists_are_tables_and_json(what: str) -> None:
    shown = harness("list", what)
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    rows = json.loads(harness("list", what, "--json").stdout)
    assert len(rows) >= 3
    first = next(iter(rows[0]))
    assert all(str(row[first])[:10] in shown.stdout for row in rows)


def test_schedules_are_listed_by_the_keys_of_a_grid() -> None:
    (constant,) = [
        row for row in json.loads(harness("list", "schedules", "--json").stdout) if row["kind"] == "constant"
    ]
    assert constant["parameters"] == {"tau": 1.0}


def test_an_estimator_is_explained() -> None:
    shown = harness("list", "estimators", "rloo").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith("rloo\n")
    for text in ("\nApproximates", "\nevaluations    n_samples per", "\nin a grid      {name: rloo, n_samples: 4}"):
        assert text in shown


def test_explaining_an_unknown_estimator_suggests_one() -> None:
    assert_refused(harness("list", "estimator"), "got 'estimator'. Did you mean 'estimators'?")
    assert_refused(harness("list", "estimators", "rlo"), "got 'rlo'. Did you mean 'rloo'")
    assert_refused(harness("list", "schedules", "constant"), "expected no name, got 'constant'")
    assert_refused(harness("list", "estimators", "grpo"), "got 'grpo'. GRPO is no estimator here: it divides by")


def test_an_estimator_is_explained_by_another_name_of_it() -> None:
    shown = harness("list", "estimators", "LOORF").stdout
    assert shown.startswith("LOORF is rloo here.\n\nrloo\n")
    assert "\nother names    LOORF, LOO, " in shown
    assert harness("list", "estimators", "Gumbel-Softmax").stdout.startswith("Gumbel-Softmax is gumbel_softmax here.\n")
    facts = json.loads(harness("list", "estimators", "vargrad", "--json").stdout)
    assert (facts["asked"], facts["name"], facts["parameters"]) == ("vargrad", "rloo", {"n_samples": 4})
    assert facts["meaning"] == "VarGrad is rloo here, if log q is part of the cost, as a number."
    assert json.loads(harness("list", "estimators", "rloo", "--json").stdout)["meaning"] is None
    assert_refused(harness("list", "tasks", "polynomial", "--json"), "expected no --json")


def exit_code(command: click.Command, arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(arguments, command)
    return caught.value.code


def test_each_kind_of_failure_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @click.argument("what")
    def fails(what: str) -> None:
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "refuse":
            raise Refused("expected this, got that.")

    assert exit_code(fails, ["interrupt"]) == 130
    assert exit_code(fails, ["refuse"]) == 2
    assert capsys.readouterr().err.strip() == "expected this, got that."
    assert exit_code(fails, ["--nonsense"]) == 2
    assert not exit_code(fails, ["nothing"])


def test_doctor_and_version() -> None:
    done = harness("doctor")
    assert done.returncode == 0, done.stderr
    assert "device cpu: available" in done.stdout
    assert re.search(r"harness, version \d", harness_process("--version").stdout)


def test_help_starts_fast() -> None:
    """A bound with room for a loaded machine; the measured time is in the README."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        assert harness_process("--help").returncode == 0
        times.append(time.perf_counter() - begun)
    assert min(times) < 1.0
