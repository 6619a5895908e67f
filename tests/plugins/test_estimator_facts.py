"""What is listed of the estimators is what their classes say, whatever was remembered, and takes no torch."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from estimators import REGISTRY
from harness.commands import inventory
from harness.plugins import estimator_facts, registry
from harness.plugins.estimator_facts import cache_file, identity, known, read, remember

PLUGIN = '''
from estimators import Pathwise

class Mine(Pathwise):
    """A softmax of mine."""
    name, relaxes = "mine", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)
'''
HEAVY = {"torch", "mlflow", "pandas", "scipy", "matplotlib"}


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))


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


def test_estimators_are_listed_and_explained_without_torch_once_they_were_read() -> None:
    assert "torch" in heavy_imports("list", "estimators")  # so that this test can fail
    for arguments in (["list", "estimators"], ["list", "estimators", "--json"], ["list", "estimators", "rebar"]):
        assert not heavy_imports(*arguments)


def test_a_dry_run_imports_neither_statistics_nor_the_store(tmp_path: Path) -> None:
    grid = tmp_path / "g.yaml"
    grid.write_text("estimators: [rloo]\nseeds: [0]\nmodel: {hidden: [8]}\n")
    assert heavy_imports("run", "--dry-run", "--grid", str(grid)) == {"torch"}


def test_facts_are_the_same_remembered_and_read() -> None:
    first = known()
    assert cache_file().exists()
    again = estimator_facts.remembered(identity())
    assert again == first == read(REGISTRY)
    assert list(again) == list(REGISTRY)


def test_the_rows_say_what_the_classes_declare() -> None:
    for row, cls in zip(inventory.rows("estimators"), REGISTRY.values(), strict=True):
        assert list(row) == ["name", "unbiased", "evals", "relaxes", "parameters", "reference"]
        declared = (cls.name, cls.unbiased, cls.relaxes, cls.reference)
        assert (row["name"], row["unbiased"], row["relaxes"], row["reference"]) == declared


def remember_nonsense() -> None:
    """Remember, under the identity of today's sources, that REINFORCE is biased: it shows what came from the file."""
    found = read(REGISTRY)
    remember(identity(), found | {"reinforce": replace(found["reinforce"], unbiased=False)})


def test_what_is_remembered_is_used() -> None:
    remember_nonsense()
    assert not known()["reinforce"].unbiased


def test_an_edited_source_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "estimators"
    copy.mkdir()
    for path in estimator_facts._package().glob("*.py"):
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(estimator_facts, "_package", lambda: copy)
    remember_nonsense()
    assert not known()["reinforce"].unbiased
    with (copy / "reinmax.py").open("a") as source:
        source.write("# edited\n")
    assert known()["reinforce"].unbiased
    assert known() == read(REGISTRY)
    (copy / "new.py").touch()
    assert estimator_facts.remembered(identity()) is None
    assert len(list(cache_file().parent.iterdir())) == 1  # the old facts were replaced


def test_another_python_or_torch_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {identity()}
    monkeypatch.setattr(estimator_facts.sys, "version", "3.99")
    found.add(identity())
    monkeypatch.setattr(estimator_facts, "version", lambda _: "99.0")
    found.add(identity())
    assert len(found) == 3


def test_nothing_is_remembered_of_sources_that_change_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["before", "after"])
    monkeypatch.setattr(estimator_facts, "identity", lambda: next(states))
    assert known() == read(REGISTRY)
    assert not cache_file().exists()


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b"{}", b'{"identity": 1}', b"IDENTITY"]
)
def test_a_damaged_file_is_read_over(damaged: bytes) -> None:
    cache_file().parent.mkdir(parents=True)
    row = asdict(read(REGISTRY)["rloo"])
    del row["doc"]
    if damaged == b"IDENTITY":  # the right one, with facts of another shape
        damaged = json.dumps({"identity": identity(), "estimators": [row]}).encode()
    cache_file().write_bytes(damaged)
    assert known() == read(REGISTRY)
    assert estimator_facts.remembered(identity()) == read(REGISTRY)


def test_a_cache_that_cannot_be_written_costs_time_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert known() == read(REGISTRY)


def test_plugins_are_loaded_for_real(tmp_path: Path) -> None:
    remember_nonsense()
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    listed = known([path])
    assert (listed["mine"].doc, listed["mine"].built_in) == ("A softmax of mine.", False)
    assert listed["reinforce"].unbiased  # nothing was taken from the file
    assert "in a grid      mine" in inventory.explain("mine", [path])
    path.write_text(PLUGIN.replace("of mine", "of yours"))
    assert known([path])["mine"].doc == "A softmax of yours."
    assert "mine" not in known()


def test_entry_points_are_loaded_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    remember_nonsense()
    point = EntryPoint("again", "estimators:StraightThrough", registry.GROUP)
    for module in (estimator_facts, registry):
        monkeypatch.setattr(module, "entry_points", lambda group: (point,))
    assert known()["reinforce"].unbiased
