"""Errors of a plugin are reported once with its own line; the status of a sweep does not need the plugin."""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from estimators import REGISTRY
from estimators.conformance.__main__ import USAGE
from estimators.conformance.__main__ import main as conformance
from harness.cli import main
from harness.config import RunConfig
from harness.events import Diverged, Failed, Finished, Record, Started
from harness.execution.executor import Job
from harness.execution.worker import train_to_records
from harness.grid.load import Grid, load_grid
from harness.plugins import user_modules
from harness.plugins.errors import in_one_line
from harness.plugins.registry import load_registry
from harness.status.progress import PlainProgress
from harness.status.terminal_summary import cause, unfinished
from harness.storage import checksummed_file, plan
from harness.storage.journal import Journal
from harness.storage.plan_file import read_plan
from harness.storage.sweep_state import Sweep

Make = Callable[..., RunConfig]
HEAD = "import torch\nfrom estimators import Pathwise\n"
NO_GRADIENT = "mine: expected a gradient that reaches the logits, got a cost that depends on nothing that is trained."
IN_PLACE = "mine: expected tensors that autograd needs to stay as they are, got one that was changed in place."


def pathwise(*lines: str, name: str = "mine") -> str:
    body = "".join(f"        {line}\n" for line in lines)
    return f"class Mine(Pathwise):\n    name, relaxes = {name!r}, True\n    def sample(self, l):\n{body}"


@pytest.fixture
def failure(tmp_path: Path, tiny_run: Make) -> Callable[[str], Failed]:
    """Return how a run with a plug-in of this text fails."""

    def failure(text: str) -> Failed:
        path = tmp_path / "mine.py"
        path.write_text(HEAD + text)
        run = tiny_run("reinforce")
        run = run.model_copy(update={"estimator": run.estimator.model_copy(update={"name": "mine"})})
        end = list(train_to_records(Job(run), load_registry([path])))[-1].event
        assert isinstance(end, Failed)
        return end

    return failure


@pytest.mark.parametrize(
    ("text", "start", "line"),
    [
        (pathwise("return torch.einsum('bl,bl->b', l, l)"), "RuntimeError: einsum(): ", 6),
        (pathwise("return soft(l)") + "def soft(l):\n    return l.softmax(9)\n", "IndexError: ", 8),
        (pathwise("x = 1", "raise ValueError('mine: no')"), "ValueError: mine: no (step 1, epoch 1)", 7),
        (pathwise("return {}['x']"), "KeyError: 'x'", 6),
        (pathwise("return l.softmax(-1)"), "ValueError: mine: expected sample of shape (S, B, L, K)", 5),
        (pathwise("return l.detach().softmax(-1)[None]"), "ValueError: mine: expected a code with a gradient", 5),
        (pathwise("torch.autograd.grad(l.detach().sum(), l)"), NO_GRADIENT, 6),
        (pathwise("w = torch.ones(1, requires_grad=True)", "w += 1", "return (w * l)[None]"), IN_PLACE, 7),
        (pathwise("x = l.exp()", "y = x.exp()", "y += 1", "return y.softmax(-1)[None]"), IN_PLACE, 5),
    ],
)
def test_a_failed_run_names_the_line_of_the_plugin_and_says_it_in_words(failure, text, start, line):
    end = failure(text)
    assert end.error.startswith(start)
    assert end.error.endswith(f"(mine.py:{line})")
    assert "\n" not in end.error
    assert "Traceback" in end.traceback


TASK = """
import torch
from harness.tasks import NoData, OneLayerTask
from prices import price

class Mine(OneLayerTask):
    name = "mine"

    def __init__(self):
        super().__init__()
        self.n_latents, self.n_categories = 1, 3
        self.theta = torch.nn.Parameter(torch.zeros(1, 3))

    def data(self, config):
        return NoData(steps_per_epoch=2)

    def logits(self, batch):
        return self.theta.expand(len(batch), -1, -1)

    def cost(self, batch):
        return lambda z: price(z)
"""


@pytest.mark.parametrize(
    ("old", "new", "price", "start", "where"),
    [
        ("price(z)", "price(z).no", "return z[..., 0].sum(-1)", "AttributeError: ", "task.py:21"),
        ("", "", "return z[..., 7].sum(-1)", "IndexError: index 7 is out of bounds", "prices.py:2"),
        ("", "", "raise KeyError(3)", "KeyError: 3", "prices.py:2"),
        (
            "self.theta.ex",
            "self.theta.detach().ex",
            "return 0 * z[..., 0].sum(-1)",
            "mine: expected a loss with a ",
            "",
        ),
        (
            "price(z)",
            "price(z)[0]",
            "return z[..., 0].sum(-1)",
            "ValueError: rloo: expected cost of shape (S, B) = ",
            "",
        ),
    ],
)
def test_a_failed_run_names_the_line_of_the_task_or_of_its_module(tmp_path, monkeypatch, old, new, price, start, where):
    monkeypatch.setattr(user_modules._FINDER, "folders", {})
    (tmp_path / "prices.py").write_text(f"def price(z):\n    {price}\n")
    (tmp_path / "task.py").write_text(TASK.replace(old, new))
    registry = load_registry([tmp_path / "task.py"])
    grid = load_grid("g.yaml", registry, "name: g\ntask: mine\nestimators: [rloo]\ntraining: {epochs: 1}\nseeds: [0]\n")
    end = list(train_to_records(Job(grid.runs[0]), registry))[-1].event
    assert isinstance(end, Failed)
    assert end.error.startswith(start)
    assert end.error.endswith(f"({where})") or (not where and re.search(r"\(task\.py:\d+\)$", end.error))
    assert "\n" not in end.error


def test_errors_raised_by_libraries_keep_their_text_and_position():
    def fails():
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.\nmore")

    for cls in (None, REGISTRY["rloo"]):
        with pytest.raises(RuntimeError) as caught:
            fails()
        line = in_one_line(caught.value, cls)
        assert line.startswith("RuntimeError: a leaf Variable that requires grad is being used in an in-place")
        assert "(test_errors.py:" in line


def sweep_of(runs: list[RunConfig], errors: dict[int, str]) -> tuple[Sweep, list[Record]]:
    sweep = Sweep(Grid("mine", tuple(runs), ""), Path(), tuple(runs))
    records = [Record(run.key, 0, Started({})) for run in runs]
    records += [Record(runs[index].key, 1, Failed(error)) for index, error in errors.items()]
    return sweep, records


def test_one_cause_is_reported_once_with_its_count(tiny_run):
    runs = [tiny_run("rloo", seed=seed) for seed in range(11)]
    errors = {seed: f"ValueError: mine: no (step {seed}, epoch 1) (mine.py:7)" for seed in range(10)}
    sweep, records = sweep_of(runs, errors)
    records += [Record(runs[10].key, 1, Failed("ValueError: another (mine.py:9)"))]
    shown = StringIO()
    progress = PlainProgress(Console(file=shown, width=200))
    progress.start(sweep, runs)
    for record in records:
        if not isinstance(record.event, Started):
            sweep.ends[record.run_key] = record.event
        progress.show(record)
    lines = shown.getvalue().splitlines()[1:]
    assert len(lines) == 11
    assert [line for line in lines if "mine: no" in line] == [lines[0]]
    assert lines[9].endswith("· seed 9: the same as above, 10 times so far")
    assert lines[10].endswith("ValueError: another (mine.py:9)")
    assert unfinished(sweep) == [
        f"failed: ValueError: mine: no (step 0, epoch 1) (mine.py:7) ({runs[0].name} and 9 more)",
        f"failed: ValueError: another (mine.py:9) ({runs[10].name})",
    ]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("no (step 1, epoch 1) (a.py:1)", "no (step 2, epoch 2) (a.py:1)", True),
        ("rloo: loss is nan at step 3 (epoch 1)", "rloo: loss is nan at step 4 (epoch 1)", True),
        ("val/loss is nan after epoch 3", "val/loss is nan after epoch 5", True),
        ("no (a.py:1)", "no (a.py:2)", False),
        ("expected 3, got 4", "expected 3, got 5", False),
    ],
)
def test_a_cause_is_an_error_without_its_step(one, other, same):
    assert (cause(one) == cause(other)) is same


def test_a_note_is_shown_once():
    shown = StringIO()
    progress = PlainProgress(Console(file=shown, width=200))
    for _ in range(3):
        progress.note("mine changes it")
    assert shown.getvalue() == "note: mine changes it\n"


GRID = "name: mine\nestimators: [wide_softmax]\ntraining: {epochs: 1}\nseeds: [0, 1]\n"
PLUGIN = HEAD + pathwise("return l.softmax(-1)[None]", name="wide_softmax")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Return a folder with a grid, its plug-in, and in `results` the journal of a finished sweep."""
    (tmp_path / "my plugin.py").write_text(PLUGIN)
    (tmp_path / "grid.yaml").write_text(GRID)
    plugins = [tmp_path / "my plugin.py"]
    grid = load_grid(tmp_path / "grid.yaml", load_registry(plugins))
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    plan.save_plan(folder, grid, plan.plan_fingerprint(plugins), plugins)
    provenance = {"git_commit": None, "git_dirty": None, "packages": {"argmax-harness": "0", "torch": "2"}}
    with Journal(folder) as journal:
        for run in grid.runs:
            journal.append(Record(run.key, 1, Started(provenance)))
            journal.append(Record(run.key, 2, Finished(1, {"test/neg_elbo": 100.0, "time/total_s": 1.0})))
    return tmp_path


def called(folder: Path, capsys: pytest.CaptureFixture[str], command: str, *more: str) -> tuple[object, str, str]:
    code: object = 0
    try:
        main([command, "--grid", str(folder / "grid.yaml"), "--out", str(folder / "results"), *more])
    except SystemExit as end:
        code = end.code
    return (code or 0, *capsys.readouterr())


def test_status_needs_no_plugin_where_the_stored_plan_has_the_runs(finished, capsys):
    code, out, err = called(finished, capsys, "status")
    assert (code, err) == (0, "")
    assert "2 finished." in out


@pytest.mark.parametrize("how", ["edited", "gone", "imports a neighbour"])
def test_status_shows_the_sweep_as_it_ran_if_the_plugin_has_changed(finished, capsys, how):
    path = finished / "my plugin.py"
    if how == "gone":
        path.unlink()
    else:
        path.write_text(PLUGIN + ("# edited\n" if how == "edited" else "import neighbour\n"))
    code, out, err = called(finished, capsys, "status")
    assert code == 0
    assert err.startswith("note: these are the runs as of 20")
    assert err.endswith("give it with --plugin FILE to check.\n")
    assert err.count("\n") == 1
    assert "2 finished." in out


UNKNOWN = "estimators[0]: expected one of 41 names, got 'wide_softmax'. "
LAST = "One of your own needs --plugin FILE.\nThis sweep was last run with --plugin '"


def test_other_commands_ask_for_the_plugin_by_name(finished, capsys):
    commands = [("run",), ("run", "--dry-run"), ("sync",), ("gradients",)]
    for command in commands:
        code, _, err = called(finished, capsys, *command)
        assert code == 2
        assert UNKNOWN + LAST in err
        assert err.endswith("/my plugin.py'.\n")
    assert called(finished, capsys, "repair")[0] == 0  # takes no plug-in


def test_status_of_an_edited_grid_asks_for_the_plugin(finished, capsys):
    (finished / "grid.yaml").write_text(GRID + "description: edited\n")
    code, _, err = called(finished, capsys, "status")
    assert code == 2
    assert f"{UNKNOWN}Did you mean 'softmax'? {LAST}" in err


def test_a_plugin_that_was_deleted_is_reported_as_missing(finished, capsys):
    (finished / "my plugin.py").unlink()
    code, _, err = called(finished, capsys, "sync")
    assert code == 2
    assert UNKNOWN + LAST in err
    assert err.endswith(f"'. Not found: {finished}/my plugin.py. Give its new path.\n")


def test_status_of_a_sweep_with_a_plan_of_an_older_version_needs_the_plugin(finished, capsys):
    path = finished / "results" / "mine" / "frozen.json"
    assert read_plan(path).plugins == (str(finished / "my plugin.py"),)
    checksummed_file.write(path, b'{"format": 1, "columns": {}}')
    code, _, err = called(finished, capsys, "status")
    assert code == 2
    assert UNKNOWN in err
    code, out, err = called(finished, capsys, "status", "--plugin", str(finished / "my plugin.py"))
    assert (code, err) == (0, "")
    assert "2 finished." in out


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gumbel_sofmax", "Did you mean 'gumbel_softmax'?"),
        ("wide_softmax", "Did you mean 'softmax'? One of your own needs --plugin FILE."),
        ("entirely_mine", "One of your own needs --plugin FILE."),
    ],
)
def test_an_unknown_name_may_be_a_typo_or_a_plugin(tmp_path, capsys, name, hint):
    (tmp_path / "grid.yaml").write_text(GRID.replace("wide_softmax", name))
    code, _, err = called(tmp_path, capsys, "run")
    assert code == 2
    assert err.rstrip().endswith(hint)


def test_a_name_unknown_to_the_plugins_suggests_no_plugin(finished, capsys):
    (finished / "grid.yaml").write_text(GRID.replace("wide_softmax", "wider_softmax"))
    _, _, err = called(finished, capsys, "run", "--plugin", str(finished / "my plugin.py"))
    assert err.rstrip().endswith("Did you mean 'wide_softmax'?")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected one file, got 0 arguments."),
        (["a.py", "b.py"], "expected one file, got 2 arguments."),
        (["no.py"], "no.py: expected a Python file, got no such file."),
        (["--help-me"], "--help-me: expected a Python file, got no such file."),
        (["rloo"], "rloo: expected a Python file, got no such file."),
        (["."], ".: expected a Python file, got a folder."),
        (["broken.py"], "broken.py: expected a file that can be imported, got ZeroDivisionError: division by zero."),
        (["empty.py"], "empty.py: expected a class derived from Estimator, got none."),
    ],
)
def test_conformance_refuses_a_missing_file_and_shows_its_usage(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("1 / 0\n")
    Path("empty.py").write_text("x = 1\n")
    assert conformance(arguments) == 2
    assert capsys.readouterr().err == f"{expected}\n{USAGE}\n"


def test_process_state_is_restored_only_around_plugins(finished, monkeypatch):
    """Reading it takes as long as building some settings."""
    built = []
    monkeypatch.setattr("harness.process_state.preserved", lambda: built.append(1) or nullcontext([]))
    registry = load_registry([finished / "my plugin.py"])
    grid, counts = finished / "grid.yaml", []
    for name in ("softmax", "wide_softmax"):
        before = len(built)
        grid.write_text(GRID.replace("wide_softmax", name))
        load_grid(grid, registry)
        counts.append(len(built) - before)
    assert counts == [1, 2]  # one around the whole grid


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_conformance_explains_itself(capsys, option):
    assert conformance([option]) == 0
    assert capsys.readouterr().out.startswith(USAGE)


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "estimators.conformance", "-h"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(USAGE)


def test_divergence_in_many_runs_is_one_cause(tiny_run):
    runs = [tiny_run("rloo", seed=seed) for seed in range(3)]
    sweep = Sweep(Grid("mine", tuple(runs), ""), Path(), tuple(runs))
    sweep.ends = {run.key: Diverged(seed, f"loss is nan at step {seed} (epoch 1)") for seed, run in enumerate(runs)}
    assert len(unfinished(sweep)) == 1
