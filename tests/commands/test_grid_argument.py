"""Grids from a pipe are read once, printed commands name a file that still exists, and scripts may call `main`."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from paths import ROOT

from harness.cli import main
from harness.commands.grid_argument import GridFile, is_pipe, open_grid
from harness.execution.local_executor import without_main_module
from harness.grid.load import GridError
from harness.plugins.registry import load_registry
from harness.storage.plan import plan_fingerprint, save_plan

GRID = """name: piped
data: {train_size: 100}
model: {n_latents: 3, n_categories: 4, hidden: [16]}
training: {epochs: 1, batch_size: 50}
evaluation: {bound_samples: 1, n_images: 0}
estimators: [straight_through]
seeds: [0]
"""


def pipe(text: str) -> Path:
    """Return a path as a shell makes it of `<(…)`."""
    ours, theirs = os.pipe()
    os.write(theirs, text.encode())
    os.close(theirs)
    return Path(f"/dev/fd/{ours}")


def called(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = pipe(GRID)
    grid = open_grid(str(path), path)
    assert grid.text == GRID
    assert grid.load(load_registry(), tmp_path).name == grid.load(load_registry(), tmp_path).name == "piped"
    named = tmp_path / "fifo.yaml"
    os.mkfifo(named)
    writer = threading.Thread(target=lambda: named.write_text(GRID))
    writer.start()
    assert open_grid(str(named), named).text == GRID
    writer.join()


def test_ordinary_files_are_not_pipes(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    for place in (path, link, tmp_path, tmp_path / "none"):
        assert not is_pipe(place)
    assert open_grid(str(link), link) == GridFile(link, str(link))
    assert is_pipe(Path("/dev/stdin"))
    assert is_pipe(Path("/dev/null"))


def test_printed_commands_name_a_file_that_still_exists(tmp_path: Path) -> None:
    grid = GridFile(Path("/dev/stdin"), "-", GRID)
    assert grid.with_path(["harness", "run", "--grid", "-", "--workers", "2"], Path("r/piped")) == [
        *("harness", "run", "--grid", "r/piped/grid.yaml", "--workers", "2")
    ]
    assert grid.with_path(["harness", "run", "--grid=-"], Path("r/piped")) == [
        "harness",
        "run",
        "--grid=r/piped/grid.yaml",
    ]
    file = GridFile(Path("g.yaml"), "g.yaml")
    assert file.with_path(["harness", "run", "--grid", "g.yaml"], Path("r")) == [
        "harness",
        "run",
        "--grid",
        "g.yaml",
    ]


def test_a_grid_from_a_pipe_must_have_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    path = pipe(GRID.partition("\n")[2])
    assert called("status", "--grid", path) == 2
    assert capsys.readouterr().err == (
        f"{path}:1:1: name: expected a name, since this grid comes through a pipe, got none. Add one.\n"
    )


def test_errors_of_a_grid_from_a_pipe_have_their_position(tmp_path: Path) -> None:
    path = pipe("seeds: [\n")
    with pytest.raises(GridError, match=r"/dev/fd/\d+:2:1: file: expected YAML, got a syntax error"):
        open_grid(str(path), path).load(load_registry(), tmp_path)


def test_status_of_a_sweep_from_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "piped"
    folder.mkdir()
    grid = GridFile(Path("/dev/stdin"), "-", GRID).load(load_registry(), tmp_path)
    save_plan(folder, grid, plan_fingerprint())
    assert called("status", "--grid", pipe(GRID), "--out", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["next"] == []  # no file to name
    (folder / "grid.yaml").write_text(GRID)
    assert called("status", "--grid", pipe(GRID), "--out", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["next"] == [
        f"harness run --grid {folder / 'grid.yaml'} --out {tmp_path}"
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--grid", "a.yaml", "--grid", "b.yaml"),
            "--grid: expected one grid, got 2. Use a separate command for each.",
        ),
        (
            ("--grid", "a.yaml", "--plugin", "/dev/null"),
            "--plugin: expected a file, got the pipe or device /dev/null. Save it to a file: every worker reads it.",
        ),
    ],
)
def test_two_grids_and_a_plugin_from_a_pipe_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str
) -> None:
    assert called("run", *arguments) == 2
    assert capsys.readouterr().err == f"{line}\n"


def test_a_plugin_by_two_names_is_one(tmp_path: Path) -> None:
    code = "from estimators import Pathwise\nclass Mine(Pathwise):\n    name, relaxes = 'mine', True\n"
    (tmp_path / "mine.py").write_text(code + "    def sample(self, logits_BLK):\n        return logits_BLK\n")
    (tmp_path / "also.py").symlink_to(tmp_path / "mine.py")
    assert "mine" in load_registry([tmp_path / "mine.py", tmp_path / "also.py", tmp_path / "mine.py"])


def test_workers_do_not_import_the_calling_program() -> None:
    main_module = sys.modules["__main__"]
    with without_main_module():
        assert getattr(sys.modules["__main__"], "__file__", None) is None
        assert sys.modules["__main__"].__spec__ is None
    assert sys.modules["__main__"] is main_module


def test_a_script_that_is_its_own_plugin_is_refused_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    script = tmp_path / "script.py"
    script.write_text("from harness.cli import main\nmain(['list', 'datasets'])\n")
    assert called("run", "--grid", tmp_path / "grid.yaml", "--plugin", script) == 2
    assert capsys.readouterr().err == (
        "script.py:2: plugin failed to import: RuntimeError: harness.cli.main() was called while it was running. "
        "A script that is also a plug-in must call it under `if __name__ == '__main__':`.\n"
    )


@pytest.mark.slow  # without_main_module, which does it, is tested above
@pytest.mark.parametrize("stdin", [True, False])
def test_a_script_without_a_guard_runs_a_sweep(tmp_path: Path, out: Path, stdin: bool) -> None:
    code = (
        "from harness.cli import main\nprint('once')\n"
        f"main(['run', '--grid', '/dev/fd/' + str({0 if not stdin else 'fd'}), '--out', 'results', '--workers', '1'])\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code if not stdin else f"import os\nfd = os.open('g.yaml', os.O_RDONLY)\n{code}")
    (tmp_path / "g.yaml").write_text(GRID)
    done = subprocess.run(
        [sys.executable, "-" if stdin else "script.py"], capture_output=True, text=True, check=False, cwd=tmp_path,
        input=script.read_text() if stdin else GRID, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once") == 1
    assert "1 finished." in done.stdout
    assert (tmp_path / "results" / "piped" / "grid.yaml").read_text() == GRID
    stored = (tmp_path / "results" / "piped" / "origin.json").read_text()
    assert '"harness run --grid results/piped/grid.yaml --out results --workers 1"' in stored


def test_an_ordinary_file_in_memory_is_no_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Path("/dev/shm")  # noqa: S108
    if not os.access(memory, os.W_OK):
        pytest.skip("no /dev/shm to write to")
    path = memory / f"{tmp_path.name}-{os.getpid()}.yaml"
    path.write_text(GRID)
    try:
        assert not is_pipe(path)
        monkeypatch.chdir(memory)
        assert not is_pipe(Path(path.name))
        monkeypatch.chdir("/dev")
        assert is_pipe(Path("stdin"))
    finally:
        path.unlink()


@pytest.mark.parametrize("option", ["--out", "--grid", "--plugin"])
def test_an_empty_path_is_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    given = ["--grid", ""] if option == "--grid" else ["--grid", path, option, ""]
    assert called("run", *given, "--dry-run") == 2
    assert "got an empty text." in capsys.readouterr().err
