"""What the README and the experiments say can be done, can be done."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from paths import ROOT

from estimators import REGISTRY
from harness.cli import cli
from harness.grid.load import GridError, load_grid
from harness.plugins.registry import load_registry

DOCUMENTS = [ROOT / "README.md", ROOT / "experiments" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Every `harness …` line of every shell block."""
    found = []
    for path in DOCUMENTS:
        for block in blocks(path, "sh"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(path.name, line.partition("#")[0].strip()) for line in lines if line.startswith("harness ")]
    return found


@pytest.mark.parametrize(("document", "line"), commands(), ids=lambda value: value)
def test_every_command_in_the_documents_parses(document: str, line: str) -> None:
    words = shlex.split(line)[1:]
    group: click.Command = cli
    context = click.Context(cli)
    while isinstance(group, click.Group):
        command = group.get_command(context, words.pop(0))
        assert command is not None, line
        group = command
    parameters = group.make_context("harness", words, resilient_parsing=False).params
    grid = parameters.get("grid_file")
    if grid is not None and grid.given.startswith("experiments/"):
        assert (ROOT / grid.path).exists()
    for plugin in parameters.get("plugins", ()):
        if str(plugin).startswith("experiments/"):
            assert (ROOT / plugin).exists()


def test_documents_show_commands() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.exists()], ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    words = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", words):
        assert (path.parent / target).exists(), target


def test_grid_of_the_readme_is_valid_and_its_mistake_gives_the_line_shown(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    path = tmp_path / "my-question.yaml"
    path.write_text(text)
    grid = load_grid(path, REGISTRY)
    assert len(grid.runs) == 2 * (2 * 2 + 1) * 5
    path.write_text(text.replace("- gumbel_softmax", "- gumbel_sofmax"))
    with pytest.raises(GridError) as caught:
        load_grid(path, REGISTRY)
    shown = re.search(r"^my-question\.yaml:\d+.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown is not None
    assert caught.value.messages[0] == str(tmp_path) + "/" + shown[0]


def test_five_lines_of_the_readme_are_an_estimator_that_conforms(tmp_path: Path) -> None:
    text = blocks(ROOT / "README.md", "python")[0]
    assert len([line for line in text.splitlines() if line.strip()]) == 5
    path = tmp_path / "sharp_softmax.py"
    path.write_text(text)
    assert "sharp_softmax" in load_registry([path])
    done = subprocess.run(
        [sys.executable, "-m", "estimators.conformance", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_task_of_the_readme_passes_the_command_shown(tmp_path: Path) -> None:
    text = blocks(ROOT / "README.md", "python")[1]
    path = tmp_path / "pick_the_best.py"
    path.write_text(text)
    done = subprocess.run([sys.executable, "-m", "harness.cli", "check", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "text", [blocks(ROOT / "README.md", "python")[3], *blocks(ROOT / "docs/diagnostics.md", "python")]
)
def test_the_documents_diagnose_in_three_lines(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102
    assert (names["frame"]["reason"] == "").all()
    assert names["frame"]["cosine"].notna().all()
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    if "manual_seed" in text:  # that of the README; numbers may differ in the last place on another machine
        documented = blocks(ROOT / "README.md", "text")[0].splitlines()
        assert [line.split()[0] for line in shown] == [line.split()[0] for line in documented]


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_grid_is_valid_and_described(path: Path) -> None:
    plugins = sorted((ROOT / "experiments" / "plugins").glob("*.py"))
    grid = load_grid(path, load_registry(plugins))
    assert grid.name == path.stem
    assert grid.question
    assert path.read_text().startswith("# ")
    assert f"`{path.stem}`" in (ROOT / "experiments" / "README.md").read_text()


def test_quickstart_is_what_the_readme_says() -> None:
    runs = load_grid(ROOT / "experiments" / "quickstart.yaml", REGISTRY).runs
    names = {run.estimator.name for run in runs}
    assert names >= {"straight_through", "gumbel_softmax", "st_gumbel_softmax"}
    assert (len(names), len({run.seed for run in runs})) == (4, 2)
    assert len({run.schedule.label for run in runs} - {"none"}) == 2
    assert {run.data.name for run in runs} == {"mnist-mini"}
