"""The problems of a grid are reported together, in order, in few short lines."""

from grid_errors import HEAD

from harness.grid.errors import MAX_SHOWN
from harness.plugins.registry import load_registry


def test_all_problems_are_reported_at_once_in_order(refuse):
    lines = refuse(
        """\
estimators:
  - straight_throu
  - {name: rloo, n_samples: 0}
training: {lr: -1, epochs: 0}
schedules: [{kind: constant, tau: 0}]
zap: []
"""
    )
    assert [line.split(": ")[0:2] for line in lines] == [
        ["1:1", "seeds"],
        ["2:5", "estimators[0]"],
        ["3:29", "estimators[1].n_samples"],
        ["4:16", "training.lr"],
        ["4:28", "training.epochs"],
        ["5:35", "schedules[0].tau"],
        ["6:1", "zap"],
    ]


def test_only_the_first_problems_are_shown_and_the_rest_counted(refuse):
    lines = refuse(HEAD + f"training: {{lr: {[-i for i in range(1, 51)]}}}")
    assert len(lines) == MAX_SHOWN + 1
    assert lines[-1].endswith(f"30 more from here on; the first {MAX_SHOWN} are shown.")


def test_errors_show_long_and_strange_values_on_one_short_line(refuse):
    [line] = refuse(HEAD + f'training: {{lr: "{"x" * 500}\\n\\x1b"}}')
    assert len(line) < 120
    [line] = refuse(HEAD + '"a\\nb": 1')
    assert "'a\\nb'" in line


def test_a_plugin_may_raise_anything(refuse, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        """
from estimators import Pathwise
class Odd(Pathwise):
    name = "odd"
    relaxes = True
    def __init__(self, *, a=1, b=float("nan")):
        super().__init__()
        if a == 2: raise KeyError("two\\nlines")
        if a == 3: raise ValueError
    def check_shape(self, n_latents, n_categories):
        if n_latents == 7: raise ZeroDivisionError("seven")
    def sample(self, logits_BLK): return logits_BLK[None]
"""
    )
    text = "estimators: [{name: odd, a: %s, b: 1}]\nseeds: [0]\nmodel: {n_latents: %s}"
    registry = load_registry([plugin])
    assert refuse(text % (2, 1), registry) == [
        "1:14: estimators[0]: expected parameters that odd accepts, got KeyError: 'two\\nlines'"
    ]
    assert refuse(text % (3, 1), registry) == ["1:14: estimators[0]: expected parameters that the constructor accepts."]
    assert refuse(text % (1, 7), registry) == [
        "1:14: estimators[0]: expected parameters that odd accepts, got ZeroDivisionError: seven"
    ]
    assert refuse("estimators: [odd]\nseeds: [0]", registry) == [
        "1:14: estimators[0]: expected numbers, texts, true, false or null as the defaults of odd, got something else."
    ]
