"""What the documents say about estimators is so: the table, the code in them, and both ways to add one's own."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from estimator_cases import PLUGINS, HeavyTailSoftmax, LogisticSoftmax

from estimators import REGISTRY, Estimator, aliases
from estimators.catalogue import FORMULAS, evaluations, needs, table
from estimators.conformance import CHECKS, check_all
from estimators.conformance.__main__ import main as conformance_command
from harness.commands.available import explain

ROOT = PLUGINS.parents[1]
README = (ROOT / "estimators" / "README.md").read_text()
GUIDE = (ROOT / "docs" / "add-an-estimator.md").read_text()


def code_blocks(text, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_readme_has_the_table_of_the_registry():
    """If this fails, paste the output of `python -m estimators.catalogue` into estimators/README.md."""
    assert table() in README
    assert aliases.table() in README


def test_the_table_says_what_is_needed_of_a_cost():
    for name, needed in {"rloo": "value", "exact": "value", "reinmax": "slope", "softmax": "slope, soft codes"}.items():
        assert needs(REGISTRY[name]) == needed
    assert needs(REGISTRY["rebar"]) == "slope, soft codes"  # one-hot codes are reported, and soft ones evaluated


def test_readme_code_runs_in_six_lines():
    (code,) = code_blocks(README)
    assert len([line for line in code.splitlines() if line]) == 6
    names = {}
    exec(code, names)  # noqa: S102
    assert names["estimate"].cost_B.shape == (8,)
    assert torch.isfinite(names["logits_BLK"].grad).all()


def test_guide_code_runs_and_conforms():
    names = {"__name__": "guide"}
    exec("\n".join(code_blocks(GUIDE)), names)  # noqa: S102
    own = [
        cls
        for cls in names.values()
        if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == "guide"
    ]
    assert [cls.name for cls in own] == ["sharp_softmax", "heavy_tail_softmax", "learned_baseline"]
    for cls in own:
        assert len(check_all(cls())) == len(CHECKS)


def test_guide_lists_every_class_attribute_that_an_author_writes():
    facts = set(Estimator.__annotations__) - {"uses_tau", "uses_context", "temperatures", "n_samples", "control_lr"}
    assert all(f"`{fact}`" in GUIDE for fact in facts)


def test_guide_shows_the_plugin_as_it_is():
    (shown,) = [block for block in code_blocks(GUIDE) if "class HeavyTailSoftmax" in block]
    plugin = (PLUGINS / "heavy_tail_softmax.py").read_text()
    body = shown.partition("x_SBLK = ")[2]
    assert body.strip() in plugin


def test_links_lead_somewhere():
    for text, folder in ((README, ROOT / "estimators"), (GUIDE, ROOT / "docs")):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (folder / target).exists(), target


BROKEN = """
from estimators import Pathwise

class Broken(Pathwise):
    name, relaxes = "broken", False
    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)
"""


def test_conformance_command_checks_a_file(tmp_path, capsys):
    assert conformance_command([str(PLUGINS / "heavy_tail_softmax.py")]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert verdict == f"{len(CHECKS)} checks passed, 0 failed."
    assert [line.split(": ")[:2] for line in lines] == [[HeavyTailSoftmax.name, check.__name__] for check in CHECKS]

    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    assert conformance_command([str(path)]) == 1
    assert "broken: check_codes: FAILED: broken: expected exactly one-hot codes, got" in capsys.readouterr().out

    path.write_text("")
    assert conformance_command([str(path)]) == 2
    assert "expected a class derived from Estimator, got none." in capsys.readouterr().err


def test_entry_point_names_the_example():
    declared = tomllib.loads((PLUGINS / "entry_point_example" / "pyproject.toml").read_text())
    (key, target), = declared["project"]["entry-points"]["harness.estimators"].items()  # fmt: skip
    assert (key, target) == (LogisticSoftmax.name, f"logistic_softmax:{LogisticSoftmax.__name__}")


@pytest.mark.slow
def test_entry_point_example_installs(tmp_path):
    source = shutil.copytree(PLUGINS / "entry_point_example", tmp_path / "source")
    target = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        target,
        source,
    ]
    subprocess.run(command, check=True)
    (distribution,) = importlib.metadata.distributions(path=[str(target)])
    (entry_point,) = distribution.entry_points.select(group="harness.estimators")
    assert entry_point.value == "logistic_softmax:LogisticSoftmax"
    assert Path(target, "logistic_softmax.py").exists()


@pytest.mark.parametrize("name", REGISTRY)
def test_every_estimator_explains_itself(name):
    """`harness list estimators NAME`: the template's five parts, and every fact."""
    shown = explain(name)
    for part in ("Approximates", "Requires", "Bias", "Reference", "Departures"):
        assert f"\n{part}" in shown
    for fact in ("unbiased", "cost", "evaluations", "parameters", "temperature", "use it"):
        assert f"\n{fact}" in shown


def test_evaluations_of_built_ins_are_a_formula_and_those_of_others_an_example():
    assert {evaluations(cls) for cls in REGISTRY.values()} <= set(FORMULAS)

    class Odd(REGISTRY["reinforce"].__mro__[1]):
        name = "odd"

        def __init__(self):
            super().__init__()

        def advantage(self, cost_SB):
            return cost_SB

        def n_cost_evals(self, n_latents, n_categories):
            return 17 * n_latents

    assert evaluations(Odd) == "34 at L=2, K=3"
