"""A wrong plugin is refused before the first run, a right one passes, and the result is recorded."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from estimator_cases import CASES, IDS, make
from paths import SUPPORT

from estimators import Pathwise, build
from estimators.conformance import CHECKS, QUICK, check_all
from estimators.conformance.independence import check_examples, check_independence
from estimators.reference_problem import cubic_cost, example_logits, example_shape, example_weights
from harness.cli import main
from harness.config import RunConfig
from harness.grid.load import load_grid
from harness.plugins import quick_check
from harness.plugins.registry import PluginError, load_registry, source_of
from harness.schedules import NoSchedule
from harness.storage import last_command
from harness.train import train
from reports.page.stored_provenance import facts

WRONG, RIGHT = load_registry([SUPPORT / "wrong_plugins.py"]), load_registry([SUPPORT / "right_plugins.py"])
Make = Callable[..., RunConfig]

EXPECTED = {
    "detached": "expected a code with a gradient, got one that is detached from the logits. Return replace_gradient(",
    "without_grad": "expected a code with a gradient, got one that is detached from the logits.",
    "no_score": "expected a gradient that reaches the logits, got a cost that depends on nothing that is trained.",
    "over_batch": "expected codes that sum to 1 within",
    "slope_over_batch": "expected a gradient of each example by its own logits alone, got one by another example's.",
    "score_over_batch": "expected a gradient of each example by its own logits alone, got one by another example's.",
    "normalised_over_batch": "expected the code of each example from its own logits alone, got one that another",
    "over_latents": "expected codes that sum to 1 within",
    "slope_over_latents": "expected a gradient of each latent by its own classes, got one by the same class of other",
    "in_place": "expected tensors that autograd needs to stay as they are, got one that was changed in place.",
    "in_data": "expected the logits unchanged, got them changed in place.",
    "not_a_number": "expected finite codes, got NaN or ∞.",
    "slope_is_not_a_number": "expected a finite gradient, got NaN or ∞.",
    "off_the_simplex": "expected codes that sum to 1 within",
    "soft_though_hard": "expected exactly one-hot codes, got tensor(",
    "without_samples": "expected sample of shape (S, B, L, K) = (1, 4, 3, 4), got (4, 3, 4).",
    "one_class_less": "expected codes of shape (S, B, L, K) = (S, 4, 3, 4), got (1, 4, 3, 3).",
    "cost_of_the_batch": "expected cost_B of shape (4,), got ().",
    "constant": "expected codes that follow the logits, got the same codes for opposite logits.",
    "constant_slope": "expected a gradient that reaches the logits, got zeros at latent 0 in each of 16 calls.",
    "first_latent_only": "expected a gradient that reaches the logits, got zeros at latent 1 in each of 16 calls.",
    "doubled": "expected cost of torch.float32, got torch.float64.",
    "halved": "expected codes that sum to 1 within",
    "never_asks": "expected a call of the cost, got none.",
    "reseeds": "expected noise that goes on, got the same noise in every call: a seed is set.",
    "noise_of_numpy": "expected the same bits from the same seed of torch's generator, got a difference of",
    "raises": "RuntimeError: einsum(): ",
}


def plugins_of(registry):
    return [name for name, cls in registry.items() if source_of(cls) is not None]


def check(make_run: Make, registry, name: str, **changes) -> quick_check.CheckResult:
    run = make_run()
    estimator = run.estimator.model_copy(update={"name": name, "params": changes.pop("params", {}), "source": "x"})
    schedule = make_run("reinforce").schedule
    n_latents, n_categories = changes.pop("model", (3, 4))
    model = run.model.model_copy(update={"n_latents": n_latents, "n_categories": n_categories})
    update = {"estimator": estimator, "schedule": schedule, "model": model}
    return quick_check.check([run.model_copy(update=update)], registry)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] * (case[1] != {}))
        for case, name in zip(CASES, IDS, strict=True)
    ],
)
def test_every_built_in_passes(name, params):
    for one in QUICK:
        assert one(make(name, **params))


def test_every_wrong_plugin_has_its_refusal():
    assert set(EXPECTED) == set(plugins_of(WRONG))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_wrong_plugin_is_refused_in_one_line(name, tiny_run):
    with pytest.raises(PluginError) as caught:
        check(tiny_run, WRONG, name)
    line = str(caught.value)
    assert "\n" not in line
    assert re.match(rf"wrong_plugins\.py:\d+: {name}: ", line)
    assert EXPECTED[name] in line
    assert line.endswith(f"`python -m estimators.conformance {SUPPORT}/wrong_plugins.py` checks it by itself; "
                         "--no-check runs it as it is.")  # fmt: skip
    assert len(line) < 700


@pytest.mark.parametrize("name", plugins_of(RIGHT))
def test_a_right_plugin_passes(name, tiny_run):
    assert check(tiny_run, RIGHT, name) == quick_check.CheckResult("passed")


def test_an_error_names_the_line_that_raised_or_else_the_method(tiny_run):
    text = (SUPPORT / "wrong_plugins.py").read_text().splitlines()
    for name, expected in (("raises", "einsum"), ("in_place", "logits_BLK -="), ("constant", "def sample")):
        with pytest.raises(PluginError) as caught:
            check(tiny_run, WRONG, name)
        number = int(str(caught.value).split(":")[1])
        assert expected in text[number - 1]


def test_a_plugin_is_checked_with_the_parameters_and_temperatures_of_the_grid(tiny_run, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from estimators import Pathwise\nSEEN = []\n"
        "class Mine(Pathwise):\n    name, relaxes = 'mine', True\n"
        "    def __init__(self, *, scale: float = 1.0, tau: float = 1.0):\n"
        "        super().__init__()\n        self.scale, self.tau = scale, tau\n"
        "    def sample(self, l):\n        SEEN.append((self.scale, self.tau))\n"
        "        return (self.scale * (l / self.tau).softmax(-1)).unsqueeze(0)\n"
    )
    registry = load_registry([path])
    run = tiny_run()  # gumbel_softmax at tau = 1
    estimator = run.estimator.model_copy(update={"name": "mine", "params": {"scale": 1.0}, "source": "x"})
    runs = [run.model_copy(update={"estimator": estimator, "seed": seed}) for seed in range(3)]
    assert quick_check.plugin_settings(runs, registry) == [("mine", {"scale": 1.0, "tau": 1.0}, (3, 4))]
    assert quick_check.check(runs, registry).conformance == "passed"
    wrong = estimator.model_copy(update={"params": {"scale": 2.0}})
    with pytest.raises(PluginError, match="mine: expected codes that sum to 1"):
        quick_check.check([*runs, run.model_copy(update={"estimator": wrong})], registry)


def test_a_grid_without_plugins_is_not_checked(tiny_run, monkeypatch):
    monkeypatch.setattr(quick_check, "_check_one", None)
    assert quick_check.check([tiny_run()], WRONG) == quick_check.CheckResult(None)


def test_the_check_of_a_slow_plugin_says_how_much_it_covered_and_its_time(tiny_run, monkeypatch):
    monkeypatch.setattr(quick_check, "BUDGET_S", 0.0)
    found = check(tiny_run, RIGHT, "wide_only")
    assert found.conformance == "passed (1 of 7 checks)"
    (line,) = found.notes
    assert re.fullmatch(r"wide_only takes long: 1 of 7 quick checks were made, in 0\.\d s", line)


@pytest.mark.parametrize(
    ("done", "n_settings", "expected"),
    [
        ([7, 7], 2, "passed"),
        ([2], 1, "passed (2 of 7 checks)"),
        ([7, 7], 5, "passed (2 of 5 settings)"),
        ([7, 3], 2, "passed (at least 3 of 7 checks)"),
        ([7, 3], 5, "passed (2 of 5 settings, at least 3 of 7 checks)"),
    ],
)
def test_the_stored_result_says_how_much_was_checked(done, n_settings, expected):
    assert quick_check._passed([(n, 7) for n in done], n_settings) == expected


def test_a_plugin_is_checked_at_its_models_shape_or_a_smaller_one_if_huge(tiny_run):
    estimator = build("many_classes_only", RIGHT)
    assert example_shape(estimator, (2, 128)) == (2, 128)
    assert example_shape(estimator, (30, 10**6)) == (1, 100)
    assert check(tiny_run, RIGHT, "many_classes_only", model=(2, 128)).conformance == "passed"
    assert check_all(estimator)  # the whole conformance knows no model


def test_an_estimator_that_accepts_none_of_the_tried_shapes_is_refused():
    class Never(type(build("many_classes_only", RIGHT))):
        name = "never"

        def check_shape(self, n_latents, n_categories):
            raise ValueError

    with pytest.raises(AssertionError, match=r"^never: expected a shape of at most 1024 latents and classes that"):
        check_all(Never())


@pytest.mark.parametrize("name", ["prepared", "warm_up", "one_latent_a_call"])
def test_conformance_accepts_parameters_made_in_prepare_and_late_gradients(name):
    assert CHECKS[3](build(name, RIGHT)).startswith("finite")


def test_only_full_conformance_finds_a_temperature_shared_by_all_latents():
    estimator = build("temperature_of_all_latents", RIGHT)
    assert check_examples(estimator)
    with pytest.raises(AssertionError, match="expected a gradient of each latent by its own logits alone"):
        check_independence(estimator)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_wrong_plugin_is_refused_at_the_shape_of_an_ordinary_model_too(name, tiny_run):
    with pytest.raises(PluginError, match=name):
        check(tiny_run, WRONG, name, model=(30, 10))


GRID = """
name: tiny
data: {{train_size: 100}}
model: {{n_latents: 3, n_categories: 4, hidden: [16]}}
training: {{epochs: 1, batch_size: 50}}
evaluation: {{bound_samples: 2, n_images: 0}}
estimators: [{}]
seeds: [0]
"""


def command_of(folder: Path, name: str, command: str = "run") -> list[str]:
    path = folder / "mine.yaml"
    path.write_text(GRID.format(name))
    file = SUPPORT / ("wrong_plugins.py" if name in WRONG else "right_plugins.py")
    return [command, "--grid", str(path), "--plugin", str(file), "--out", str(folder / "results")]


def exit_code(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


@pytest.mark.parametrize("options", [["run"], ["run", "--dry-run"], ["gradients"]], ids=" ".join)
def test_commands_refuse_a_wrong_plugin_before_anything_is_stored(tmp_path, capsys, options):
    command, *more = options
    assert exit_code([*command_of(tmp_path, "off_the_simplex", command), *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wrong_plugins.py:")
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_with_no_check_a_wrong_plugin_runs_and_the_report_says_so(tmp_path):
    assert exit_code([*command_of(tmp_path, "slope_over_batch"), "--no-check", "--workers", "1"]) == 0
    folder = tmp_path / "results" / "tiny"
    started = json.loads((folder / "journal.jsonl").read_text().splitlines()[0][9:])["provenance"]
    assert started["conformance"] == "skipped by --no-check"
    assert started["process"]["dtype"] == "float32"
    known = last_command.read(folder)
    assert known is not None
    assert ("Conformance of plug-ins", "skipped by --no-check") in list(facts(known.provenance))


def test_a_report_of_a_sweep_without_plugins_says_nothing_of_them():
    assert "Conformance of plug-ins" not in dict(facts({"python": "3.11"}))
    assert dict(facts({"conformance": "passed"}))["Conformance of plug-ins"] == "passed"


@pytest.mark.parametrize("name", ["in_place", "in_data", "detached"])
def test_training_notices_the_mistakes_that_pathwise_can_check(name, tiny_run):
    run = tiny_run("softmax")
    estimator = run.estimator.model_copy(update={"name": name, "params": {}})
    run = run.model_copy(update={"estimator": estimator, "schedule": tiny_run("reinforce").schedule})
    if name == "in_data":  # torch does not count it: the quick check compares the numbers
        assert list(train(run, WRONG))[-1].kind == "finished"
        return
    with pytest.raises((ValueError, RuntimeError), match=r"changed in place|detached|inplace"):
        list(train(run, WRONG))


def test_changes_of_process_state_by_a_plugin_are_named_and_undone(tiny_run, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom estimators import Pathwise\n"
        "class Mine(Pathwise):\n    name, relaxes = 'mine', True\n"
        "    def __init__(self):\n        super().__init__()\n        torch.set_grad_enabled(False)\n"
        "    def sample(self, l):\n        torch.set_num_threads(2)\n        return l.softmax(-1).unsqueeze(0)\n"
    )
    found = check(tiny_run, load_registry([path]), "mine")
    assert found.conformance == "passed"
    (line,) = found.notes
    assert line.startswith("mine changes the grad mode (True to False) and the number of threads (1 to 2) of the whole")
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 1


class Shifts(Pathwise):
    """Changes the logits where autograd does not mind."""

    name, relaxes = "shifts", True

    def sample(self, logits_BLK):
        return logits_BLK.sub_(1.0).softmax(-1).unsqueeze(0)


def test_changed_logits_are_noticed_where_they_change():
    logits_BLK = example_logits().requires_grad_() * 1.0
    with pytest.raises(ValueError, match=r"^shifts: expected the logits unchanged, got them changed in place: the KL"):
        Shifts()(logits_BLK, cubic_cost(example_weights()))
    with torch.no_grad(), pytest.raises(ValueError, match="changed in place"):
        Shifts()(example_logits(), cubic_cost(example_weights()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_evaluation_needs_no_gradient(mode):
    with mode():
        assert build("gumbel_softmax")(example_logits(), cubic_cost(example_weights())).cost_B.shape == (4,)


UNTRAINED = """
import torch
from estimators import Pathwise


class Scaled(Pathwise):
    name, relaxes = "scaled", True

    def __init__(self):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.zeros(()), requires_grad=REQUIRES)

    def sample(self, logits_BLK):
        return (self.log_scale.exp() * logits_BLK).softmax(-1).unsqueeze(0)
"""


@pytest.mark.parametrize("requires_grad", [True, False])
def test_untrained_parameters_are_reported(requires_grad: bool, tmp_path: Path, tiny_run: Make) -> None:
    path = tmp_path / "scaled.py"
    path.write_text(UNTRAINED.replace("REQUIRES", str(requires_grad)))
    registry = load_registry([path])
    found = quick_check.check([tiny_run("scaled", schedule=NoSchedule())], registry)
    assert found.conformance == "passed"
    told = "scaled has parameters that are never trained: log_scale. An estimator trains its own by the control_loss"
    assert [note[: len(told)] for note in found.notes] == [told] * requires_grad


TASKS = load_registry([SUPPORT / "wrong_tasks.py"])
TASK_GRID = """
name: tiny
task: {task}
training: {{epochs: 1, batch_size: 20}}
evaluation: {{validation_split: train}}
estimators: [straight_through]
schedules: [{{kind: constant, tau: 1}}]
seeds: [0, 1]
"""


def task_run(folder: Path, task: str, *more: str, file: Path = SUPPORT / "wrong_tasks.py") -> int | str | None:
    path = folder / "mine.yaml"
    path.write_text(TASK_GRID.format(task=task))
    return exit_code(["run", "--grid", str(path), "--plugin", str(file), "--out", str(folder / "results"), *more])


def test_each_setting_of_a_task_is_checked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(quick_check, "BUDGET_S", 60.0)
    path = tmp_path / "mine.yaml"
    path.write_text(TASK_GRID.format(task="{name: right, width: [3, 4]}"))
    grid = load_grid(path, TASKS)
    assert len(grid.runs) == 4
    assert len(list(quick_check._task_checks(grid.runs, TASKS))) == 2
    assert quick_check.check(grid.runs, TASKS) == quick_check.CheckResult("passed")
    assert quick_check.check(grid.runs, TASKS, skip=True).conformance == "skipped by --no-check"


@pytest.mark.parametrize("task", ["mixes_examples", "measure_is_nan", "cost_of_an_example", "unreached_parameter"])
def test_a_wrong_task_is_refused_before_anything_is_stored(tmp_path, capsys, task):
    assert task_run(tmp_path, task) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(rf"wrong_tasks\.py:\d+: {task}: expected ", err)
    assert err.endswith("wrong_tasks.py` checks it by itself; --no-check runs it as it is.\n")
    assert "`harness check " in err
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("task", ["data_is_missing", "no_sizes", "data_is_a_tensor"])
def test_a_task_that_cannot_be_built_is_refused_with_the_place_in_the_grid_and_its_own_line(tmp_path, capsys, task):
    assert task_run(tmp_path, task) == 2
    err = capsys.readouterr().err
    assert re.match(r".*mine\.yaml:\d+:\d+: task: ", err)
    assert re.search(r"\(wrong_tasks\.py:\d+\)", err)
    assert err.count("\n") == 1
