"""Modules beside a plug-in can be imported from anywhere, and an edit of them is an edit of the plug-in."""

import hashlib
import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from estimators import build
from harness.grid.load import load_grid
from harness.plugins import user_modules
from harness.plugins.imports import read_imports
from harness.plugins.registry import PluginError, import_notes, load_registry, source_of
from harness.plugins.user_modules import files_to_send
from harness.storage.plan import plan_fingerprint, planned_runs, save_plan

PLUGIN = """
from estimators import Pathwise
{}

class Mine(Pathwise):
    name, relaxes = "mine", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1)[None]

    def value(self):
        return {}
"""
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test imported."""
    monkeypatch.setattr(user_modules._FINDER, "folders", {})
    monkeypatch.setattr(user_modules._FINDER, "known", set())
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file; if it is a plug-in, with this statement at its top and this value."""

    def write(name: str, text: str = "", *, top: str | None = None, value: str = "None", folder: str = "a") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if top is None else PLUGIN.format(top, value))
        return path

    return write


def value_of(*paths: Path, name: str = "mine") -> object:
    return build(name, load_registry(paths)).value()  # type: ignore[attr-defined]


def identity(path: Path) -> str:
    found = source_of(load_registry([path])["mine"])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("top", "value"),
    [
        ("import my_model", "my_model.X"),
        ("from my_model import X", "X"),
        ("from my_model import *", "X"),
        ("import my_package.part as p", "p.X"),
        ("from my_package import part", "part.X"),
        ("from my_package.part import X", "X"),
        ("", "__import__('importlib').import_module('my_model').X"),
        ("def f():\n    from my_package.part import X\n    return X", "f()"),
    ],
)
def test_a_module_beside_a_plugin_is_imported_and_its_edit_is_an_edit_of_the_plugin(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: str, value: str
) -> None:
    write("deep.py", "X = 1\n")
    write("my_model.py", "from deep import X\n")
    write("my_package/__init__.py", "")
    write("my_package/part.py", "from .base import X\n")
    write("my_package/base.py", "import deep\nX = deep.X\n")
    path = write("mine.py", top=top, value=value)
    monkeypatch.chdir(tmp_path)
    assert value_of(path) == 1
    before, fingerprint = identity(path), plan_fingerprint([path])
    assert before != hashlib.sha256(path.read_bytes()).hexdigest()
    edited = 22 if "(" in value else 2  # the same size within a second, unless it is imported after the plug-in
    write("deep.py", f"X = {edited}\n")
    assert value_of(path) == edited
    assert identity(path) != before
    assert fingerprint is not None
    assert plan_fingerprint([path]) not in (fingerprint, None)
    write("deep.py", "X = 1\n")
    assert (identity(path), plan_fingerprint([path])) == (before, fingerprint)


def test_a_plugin_without_own_modules_has_the_hash_of_its_file(write: Write) -> None:
    write("numpy_like.py", "X = 1\n")
    path = write("mine.py", top="import math, numpy, torch\nfrom harness.tasks import Task")
    assert identity(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_identity_depends_on_names_and_texts_not_on_folders(write: Write) -> None:
    for folder in ("a", "b"):
        write("my_model.py", "X = 1\n", folder=folder)
    one, other = (write("mine.py", top="import my_model", folder=folder) for folder in ("a", "b"))
    assert identity(one) == identity(other)


def test_a_module_found_by_a_changed_path_counts(write: Write) -> None:
    write("library.py", "X = 1\n", folder="src")
    top = "import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'src'))\nimport library"
    path = write("mine.py", top=top, value="library.X")
    before = identity(path)
    write("library.py", "X = 2\n", folder="src")
    assert value_of(path) == 2
    assert identity(path) != before
    assert plan_fingerprint([path]) is None  # what it imports is known only by running it


def test_a_computed_import_is_named_as_not_covered(write: Write) -> None:
    write("my_model.py", "X = 1\n")
    path = write("mine.py", top="import importlib\nm = importlib.import_module('my_' + 'model')", value="m.X")
    assert value_of(path) == 1
    assert identity(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    (line,) = import_notes(load_registry([path]))
    assert line.startswith("mine.py loads my_model by a computed name: an edit of that makes no new runs.")


def test_plugins_in_one_folder_share_a_module(write: Write) -> None:
    write("shared.py", "X = []\n")
    one = write("mine.py", top="import shared", value="shared.X")
    other = write("other.py", PLUGIN.format("import shared", "shared.X").replace('"mine"', '"other"'))
    registry = load_registry([one, other])
    assert build("mine", registry).value() is build("other", registry).value()  # type: ignore[attr-defined]


def test_plugins_of_two_folders_cannot_have_different_modules_of_one_name_in_one_registry(write: Write) -> None:
    for folder in ("a", "b"):
        write("my_model.py", f"X = {folder!r}\n", folder=folder)
    one, other = (write("mine.py", top="import my_model", value="my_model.X", folder=folder) for folder in ("a", "b"))
    with pytest.raises(PluginError) as caught:
        load_registry([one, other])
    expected = "mine.py: expected modules of different names beside the plug-ins, got 'my_model' in "
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_plugins_of_two_registries_each_get_the_module_beside_them(write: Write) -> None:
    for folder in ("a", "b"):
        write("my_model.py", f"X = {folder!r}\n", folder=folder)
    one, other = (write("mine.py", top="import my_model", value="my_model.X", folder=folder) for folder in ("a", "b"))
    first = build("mine", load_registry([one]))
    assert value_of(other) == "b"
    assert first.value() == "a"  # type: ignore[attr-defined]
    assert value_of(one) == "a"


def test_a_module_in_the_current_folder_does_not_replace_the_one_beside_the_plugin(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("my_model.py", "X = 'current'\n", folder="b")
    write("my_model.py", "X = 'beside'\n")
    path = write("mine.py", top="import my_model", value="my_model.X")
    monkeypatch.chdir(tmp_path / "b")
    monkeypatch.syspath_prepend(".")
    assert value_of(path) == "beside"


def test_a_module_with_the_name_of_an_installed_one_is_refused(write: Write) -> None:
    write("numpy.py", "X = 1\n")
    with pytest.raises(PluginError) as caught:
        load_registry([write("mine.py", top="import numpy")])
    line = str(caught.value)
    assert line.startswith("mine.py: expected a name of its own for the module 'numpy' in ")
    assert line.endswith("numpy/__init__.py. Rename yours.")


def test_the_standard_library_is_not_replaced(write: Write) -> None:
    write("fractions.py", "raise ValueError\n")
    path = write("mine.py", top="from fractions import Fraction", value="Fraction(1, 2)")
    assert value_of(path) == 0.5
    assert identity(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("module", "top", "expected"),
    [
        (
            "x = 1\n1 / 0\n",
            "import broken",
            "mine.py:3: plugin failed to import: ZeroDivisionError: division by zero (",
        ),
        ("x = (\n", "import broken", "mine.py:3: plugin failed to import: SyntaxError: "),
        ("", "from . import broken", "Import the modules beside a plug-in by their names, as in `import helper`."),
        ("", "import no_such", "Put the module beside the plug-in, add its folder to PYTHONPATH, or install it."),
    ],
)
def test_an_import_that_fails_names_both_lines_or_what_to_do(
    write: Write, module: str, top: str, expected: str
) -> None:
    write("broken.py", module)
    with pytest.raises(PluginError) as caught:
        load_registry([write("mine.py", top=top)])
    line = str(caught.value)
    assert expected in line + "."
    assert "\n" not in line
    assert not module or "(broken.py:" in line
    write("broken.py", "")  # it can be repaired
    if "no_such" not in top and "from ." not in top:
        load_registry([write("mine.py", top=top)])


def test_modules_travel_to_a_machine_that_has_none_of_them(write: Write, tmp_path: Path) -> None:
    write("my_model.py", "from my_package.part import X\n")
    write("my_package/__init__.py", "")
    write("my_package/part.py", "X = 1\n")
    path = write("mine.py", top="import my_model", value="my_model.X")
    plugins, modules = ((path.name, path.read_bytes()),), files_to_send([path])
    assert [name for name, _ in modules] == ["my_model.py", "my_package/__init__.py", "my_package/part.py"]
    code = f"""
        from estimators import build
        from harness.execution.ray_worker import load_plugins
        from harness.plugins.registry import source_of
        registry = load_plugins({plugins!r}, {modules!r})
        print(build("mine", registry).value(), source_of(registry["mine"]))
    """
    there = tmp_path / "there"
    there.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=there,
        env={**os.environ, "TMPDIR": str(there)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1", identity(path)]


def test_python_that_cannot_be_read_imports_nothing() -> None:
    found = read_imports(b"x = (", None)
    assert (found.own, found.others, found.is_computed) == ({}, set(), True)


def test_an_installed_package_covers_its_own_modules(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("pkg/__init__.py", "", folder="site-packages")
    write("pkg/helper.py", "X = 1\n", folder="site-packages")
    write("pkg/mine.py", top="from pkg.helper import X", folder="site-packages")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")

    def identity_now() -> str | None:
        for name in ("pkg", "pkg.mine", "pkg.helper"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return source_of(importlib.import_module("pkg.mine").Mine)

    before = identity_now()
    write("pkg/helper.py", "X = 22\n", folder="site-packages")
    assert identity_now() != before


def test_an_edit_of_a_module_makes_new_runs_and_the_sweep_says_so(write: Write, tmp_path: Path) -> None:
    write("my_model.py", "X = 1\n")
    path, sweep = write("mine.py", top="import my_model"), tmp_path / "mine"
    sweep.mkdir()
    text = "name: mine\nestimators: [mine]\nseeds: [0]\n"

    def save() -> list[str]:
        fingerprint = plan_fingerprint([path])
        return save_plan(sweep, load_grid("mine.yaml", load_registry([path]), text), fingerprint, [path])

    assert save() == []
    assert planned_runs(sweep, text) is not None
    assert planned_runs(sweep, text, [path]) is not None
    write("my_model.py", "X = 2\n")
    assert planned_runs(sweep, text) is None  # so that commands build the grid, or say that it may have changed
    head, *lines = save()
    assert "1 run changed (it is a new run)" in head
    assert lines[0].startswith("  estimator.source: ")
    assert len(lines) == 1
    assert planned_runs(sweep, text) is not None


def test_classes_without_a_file_differ_by_name() -> None:
    def made(name: str) -> type:
        return type(name, (), {"__module__": "typed_by_hand"})

    assert source_of(made("One")) == source_of(made("One")) != source_of(made("Other"))
