"""The listed facts of the estimators match their classes, and listing them does not import torch."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from estimators import REGISTRY
from estimators.aliases import names_of
from harness.commands import available
from harness.plugins import estimator_facts, loading
from harness.plugins.estimator_facts import known, read

PLUGIN = '''
from estimators import Pathwise

class Mine(Pathwise):
    """A softmax of mine."""
    name, relaxes = "mine", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)
'''
HEAVY = {"torch", "mlflow", "pandas", "scipy", "matplotlib"}


def heavy_imports(*arguments: str) -> set[str]:
    """The heavy packages that a command imports; the command must succeed."""
    code = (
        "import sys; from harness.cli import main\n"
        f"try: main({list(arguments)!r})\n"
        f"except SystemExit as end: assert not end.code, end.code\n"
        f"print('imported:', *({HEAVY!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("what", ["list schedules", "list datasets", "list grids", "run --help"])
def test_help_and_lists_import_nothing_heavy(what: str) -> None:
    assert not heavy_imports(*what.split())


def test_estimators_are_listed_and_explained_without_torch(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    assert "torch" in heavy_imports("list", "estimators", "--plugin", str(tmp_path / "mine.py"))  # so it can fail
    for arguments in (["list", "estimators"], ["list", "estimators", "--json"], ["list", "estimators", "rebar"]):
        assert not heavy_imports(*arguments)


def test_a_dry_run_imports_neither_statistics_nor_the_store(tmp_path: Path) -> None:
    grid = tmp_path / "g.yaml"
    grid.write_text("estimators: [rloo]\nseeds: [0]\nmodel: {hidden: [8]}\n")
    assert heavy_imports("run", "--dry-run", "--grid", str(grid)) == {"torch"}


def test_the_committed_facts_match_the_classes() -> None:
    """If not: python -m harness.plugins.estimator_facts."""
    assert known() == read(REGISTRY)
    assert list(known()) == list(REGISTRY)


def test_the_rows_say_what_the_classes_declare() -> None:
    for row, cls in zip(available.rows("estimators"), REGISTRY.values(), strict=True):
        assert list(row) == ["name", "unbiased", "evals", "relaxes", "parameters", "reference", "aliases"]
        assert row["aliases"] == names_of(cls.name)
        declared = (cls.name, cls.unbiased, cls.relaxes, cls.reference)
        assert (row["name"], row["unbiased"], row["relaxes"], row["reference"]) == declared


@pytest.fixture
def _wrong_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Facts that say REINFORCE is biased: they show what came from the file."""
    rows = [asdict(facts) for facts in known().values()]
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([row | {"unbiased": row["unbiased"] and row["name"] != "reinforce"} for row in rows]))
    monkeypatch.setattr(estimator_facts, "FILE", wrong)


@pytest.mark.usefixtures("_wrong_file")
def test_built_in_facts_come_from_the_file() -> None:
    assert not known()["reinforce"].unbiased


@pytest.mark.usefixtures("_wrong_file")
def test_plugins_are_imported_for_their_facts(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    listed = known([path])
    assert (listed["mine"].doc, listed["mine"].built_in) == ("A softmax of mine.", False)
    assert listed["reinforce"].unbiased  # nothing was taken from the file
    assert "in a grid      mine" in available.explain("mine", [path])
    path.write_text(PLUGIN.replace("of mine", "of yours"))
    assert known([path])["mine"].doc == "A softmax of yours."
    assert "mine" not in known()


@pytest.mark.usefixtures("_wrong_file")
def test_entry_points_are_imported_for_their_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("again", "estimators.straight_through:StraightThrough", loading.ESTIMATORS)
    for module in (estimator_facts, loading):
        monkeypatch.setattr(module, "entry_points", lambda group: (point,) if group == point.group else ())
    assert known()["reinforce"].unbiased
