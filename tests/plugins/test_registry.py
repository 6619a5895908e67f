"""A user's own estimators join the built-in ones, in every process; a plugin that cannot is refused in one line."""

import hashlib
import multiprocessing
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from estimators import REGISTRY, Estimator, build
from estimators.straight_through import StraightThrough
from harness.plugins import loading
from harness.plugins.registry import PluginError, load_registry, source_of, tasks_of
from harness.tasks import Task
from harness.tasks.registry import TASKS

PLUGIN = '''
from __future__ import annotations
from dataclasses import dataclass
from typing import final
import torch
from torch import Tensor
from estimators import Pathwise

class Base(Pathwise):  # abstract: it has no sample
    relaxes = True

@dataclass
class Helper:
    value: int = 0

@final
class Scaled(Base):
    """A softmax, scaled."""
    name = "scaled"
    relaxes = True

    def __init__(self, *, scale: float = 1.0, tau: float = 1.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scaled: expected scale > 0, got {scale!r}.")
        self.scale, self.tau = scale, tau

    def sample(self, logits_BLK: Tensor) -> Tensor:
        return torch.softmax(logits_BLK / self.tau, -1)[None] * self.scale
'''


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def refusal(*files: Path) -> str:
    with pytest.raises(PluginError) as caught:
        load_registry(files)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_plugins_the_registry_has_the_built_in_estimators():
    registry = load_registry()
    assert REGISTRY.items() <= registry.items()
    assert all(source_of(cls) is None for cls in REGISTRY.values())


def test_a_file_adds_its_concrete_estimators_only(write):
    registry = load_registry([write(PLUGIN)])
    assert registry.keys() - load_registry().keys() == {"scaled"}
    assert build("scaled", registry, scale=2.0).scale == 2.0


def test_the_registry_cannot_be_changed_and_is_not_shared(write):
    with pytest.raises(TypeError):
        load_registry()["mine"] = StraightThrough
    load_registry([write(PLUGIN)])
    assert "scaled" not in load_registry()
    assert "scaled" not in REGISTRY


def test_a_file_named_twice_counts_once_and_keeps_its_class(write, monkeypatch):
    path = write(PLUGIN)
    monkeypatch.chdir(path.parent)
    assert load_registry([path, Path("mine.py")])["scaled"] is load_registry([path])["scaled"]


def test_source_is_the_hash_of_the_file_that_was_imported(write):
    path = write(PLUGIN)
    first = load_registry([path])["scaled"]
    assert source_of(first) == hashlib.sha256(PLUGIN.encode()).hexdigest()
    write(PLUGIN + "# edited\n")
    assert source_of(first) == hashlib.sha256(PLUGIN.encode()).hexdigest()
    assert source_of(load_registry([path])["scaled"]) == hashlib.sha256((PLUGIN + "# edited\n").encode()).hexdigest()


TASK = """
import torch
from harness.tasks import NoData, OneLayerTask

class Mine(OneLayerTask):
    name = "my_task"

    def __init__(self, *, size: int = 3):
        super().__init__()
        self.n_latents, self.n_categories = size, 2
        self.theta = torch.nn.Parameter(torch.zeros(size, 2))

    def data(self, config):
        return NoData(steps_per_epoch=2)

    def logits(self, batch):
        return self.theta.expand(len(batch), -1, -1)

    def cost(self, batch):
        return lambda z_SBLK: z_SBLK[..., 0].sum(-1)
"""


def test_a_file_may_define_a_task_alone_or_beside_estimators(write):
    alone = load_registry([write(TASK)])
    assert alone.keys() == load_registry().keys()
    assert alone.tasks.keys() - load_registry().tasks.keys() == {"my_task"}
    assert source_of(alone.tasks["my_task"]) == hashlib.sha256(TASK.encode()).hexdigest()
    both = load_registry([write(PLUGIN + TASK)])
    assert both.keys() - load_registry().keys() == {"scaled"}
    assert "my_task" in both.tasks


def test_tasks_of_a_registry_are_its_own_and_else_the_built_in_ones(write):
    registry = load_registry([write(TASK)])
    assert tasks_of(registry) is registry.tasks
    assert tasks_of(REGISTRY) is TASKS
    assert TASKS.items() <= registry.tasks.items()
    assert all(source_of(cls) is None for cls in TASKS.values())
    with pytest.raises(TypeError):
        registry.tasks["mine"] = registry.tasks["my_task"]


def test_a_task_and_an_estimator_may_have_one_name(write):
    registry = load_registry([write(PLUGIN + TASK.replace("my_task", "scaled"))])
    assert issubclass(registry["scaled"], Estimator)
    assert issubclass(registry.tasks["scaled"], Task)


def _source_in_worker(path: Path) -> tuple[str | None, float]:
    registry = load_registry([path])
    return source_of(registry["scaled"]), build("scaled", registry, scale=3.0).scale


def test_a_spawned_worker_sees_the_same_plugin_and_the_module_beside_it(write):
    write("X = 1\n", "beside_a_worker.py")
    path = write("import beside_a_worker\n" + PLUGIN.replace("from __future__ import annotations\n", ""))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_source_in_worker, (path,)) == (source_of(load_registry([path])["scaled"]), 3.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import math\n\nx = 1 / 0\n", r"mine\.py:3: plugin failed to import: ZeroDivisionError: division by zero"),
        ("def f():\n    return [][1]\n\nf()\n", r"mine\.py:2: plugin failed to import: IndexError: .+"),
        ("x = 1\nclass A(:\n", r"mine\.py:2: plugin failed to import: SyntaxError: .+"),
        ("\nimport no_such_module\n", r"mine\.py:2: plugin failed to import: ModuleNotFoundError: .+"),
        ("import json\njson.loads('{')", r"mine\.py:2: plugin failed to import: JSONDecodeError: .+"),
        ("raise SystemExit(3)", r"mine\.py:1: plugin failed to import: SystemExit: 3"),
        ("raise ValueError('two\\nlines')", r"mine\.py:1: plugin failed to import: ValueError: two lines"),
        ("raise ValueError", r"mine\.py:1: plugin failed to import: ValueError"),
        ("x = '\0'", r"mine\.py:1: plugin failed to import: SyntaxError: .+"),
        (
            "",
            r"mine\.py: expected at least one concrete subclass of estimators\.Estimator, harness\.tasks\.Task or "
            r"harness\.datasets\.ImageSource, "
            r"got none\.",
        ),
        (
            "from estimators.straight_through import StraightThrough",
            r"mine\.py: expected .+ concrete subclass .+ got none\.",
        ),
        (PLUGIN.replace('name = "scaled"', "pass"), r"mine\.py:\d+: plugin failed to import: TypeError: Scaled: .+"),
        (
            PLUGIN.replace('"scaled"', '"rloo"'),
            r"mine\.py: expected a new estimator name, got 'rloo', which estimators\..+ has\. Change .+",
        ),
        (
            PLUGIN.replace("scale: float", "label: float = 1.0, scale: float"),
            r"mine\.py: scaled: expected another name for the parameter 'label'\.",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_in_one_line(write, text, expected):
    assert re.fullmatch(expected, refusal(write(text)))


def test_a_plugin_that_failed_can_be_repaired(write):
    path = write("1 / 0")
    refusal(path)
    write(PLUGIN)
    assert "scaled" in load_registry([path])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert (
        refusal(tmp_path / "no.py")
        == f"{tmp_path}/no.py: expected a readable Python file, got 'no such file or directory'."
    )
    assert refusal(tmp_path) == f"{tmp_path}: expected a readable Python file, got 'is a directory'."


def test_two_files_with_one_name_are_refused(write):
    message = refusal(write(PLUGIN), write(PLUGIN + "# another\n", "other.py"))
    assert message.startswith("other.py: expected a new estimator name, got 'scaled'")


def test_two_classes_with_one_name_in_a_file_are_refused(write):
    twice = PLUGIN + PLUGIN.partition("@final")[1] + PLUGIN.partition("@final")[2].replace("Scaled", "Other")
    assert refusal(write(twice)).startswith("mine.py: expected a new estimator name, got 'scaled'")


def test_the_same_text_from_two_places_is_one_estimator(write):
    """A plugin that is installed as an entry point may also be named with --plugin."""
    one, other = write(PLUGIN), write(PLUGIN, "other.py")
    assert load_registry([one, other])["scaled"] is load_registry([one])["scaled"]


def test_two_tasks_of_one_name_are_refused(write):
    message = refusal(write(TASK), write(TASK + "# another\n", "other.py"))
    assert message.startswith("other.py: expected a new task name, got 'my_task', which harness_plugin_")


def test_a_task_has_no_parameter_of_a_reserved_name(write):
    message = refusal(write(TASK.replace("size: int = 3", "size: int = 3, source: str = ''")))
    assert message == "mine.py: my_task: expected another name for the parameter 'source'."


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name = ", "title = ", "TypeError: Mine: expected a class attribute name such as 'my_task', got None."),
        ("*, size", "size", "TypeError: my_task: expected keyword-only constructor arguments with defaults, got 'size"),
    ],
)
def test_a_task_with_a_wrong_declaration_is_refused_with_its_line(write, old, new, expected):
    assert refusal(write(TASK.replace(old, new))).startswith(f"mine.py:5: plugin failed to import: {expected}")


@pytest.mark.parametrize("beside", ["", PLUGIN])
def test_a_class_that_lacks_a_method_is_refused_with_what_to_write(write, beside):
    text = beside + TASK.replace("def cost", "def price")
    line = text[: text.index("class Mine(")].count("\n") + 1
    expected = "expected the method cost, got a class without. Write def cost(self, batch)."
    assert refusal(write(text)) == f"mine.py:{line}: Mine: {expected}"


def test_a_class_that_lacks_several_methods_names_all(write):
    text = "from harness.tasks import Task\nclass Mine(Task):\n    name = 'mine'\n"
    assert "expected the methods data, evaluate, layers, loss, term_names, got" in refusal(write(text))


@pytest.fixture
def entry_point(write, monkeypatch):
    def install(text: str, value: str, of: str = loading.ESTIMATORS) -> None:
        path = write(text, f"{value.partition(':')[0]}.py")
        monkeypatch.syspath_prepend(path.parent)
        points = [EntryPoint("mine", value, of)]
        monkeypatch.setattr(loading, "entry_points", lambda group: points if group == of else [])

    return install


def test_an_entry_point_adds_its_class(entry_point):
    entry_point(PLUGIN, "installed_plugin:Scaled")
    cls = load_registry()["scaled"]
    assert source_of(cls) == hashlib.sha256(PLUGIN.encode()).hexdigest()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("broken_plugin_a:Nope", "plugin failed to import: AttributeError: "),
        ("broken_plugin_b:Helper", "expected a concrete subclass of estimators.Estimator, got "),
        ("broken_plugin_c:Base", "expected a concrete subclass of estimators.Estimator, got "),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_refused_in_one_line(entry_point, value, expected):
    entry_point(PLUGIN, value)
    assert refusal().startswith(f"entry point mine = {value}: {expected}")


def test_an_entry_point_of_the_tasks_adds_its_class(entry_point):
    entry_point(TASK, "installed_task:Mine", loading.TASKS)
    assert source_of(load_registry().tasks["my_task"]) == hashlib.sha256(TASK.encode()).hexdigest()


def test_an_entry_point_of_the_wrong_group_is_refused(entry_point):
    entry_point(PLUGIN, "installed_estimator:Scaled", loading.TASKS)
    assert refusal().startswith(
        "entry point mine = installed_estimator:Scaled: expected a concrete subclass of harness.tasks.Task, got "
    )


def test_a_class_that_is_only_imported_is_named(write, monkeypatch):
    monkeypatch.setattr(loading.user_modules._FINDER, "folders", {})
    write(PLUGIN, "beside_it.py")
    message = refusal(write("from beside_it import Scaled\n"))
    assert message.endswith("got none. Scaled is imported: name its own file.")
