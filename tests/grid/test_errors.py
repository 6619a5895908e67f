"""Every bad grid is refused before anything runs: a line for each problem, with its place, the rule and the value."""

import re
from pathlib import Path

import pytest

from estimators import REGISTRY
from harness.grid.errors import MAX_SHOWN
from harness.grid.load import GridError, load_grid
from harness.plugins.registry import load_registry

LINE = re.compile(r"[^\n]+:[1-9]\d*:[1-9]\d*: \S[^\n]*: [^\n]+")
NAMES = len(REGISTRY)


@pytest.fixture
def refuse(tmp_path, monkeypatch):
    """Write a grid, load it, and return its errors without the file's name."""
    monkeypatch.chdir(tmp_path)

    def refuse(text: str | bytes, registry=REGISTRY) -> list[str]:
        Path("grid.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(GridError) as caught:
            load_grid(Path("grid.yaml"), registry)
        lines = str(caught.value).splitlines()
        assert tuple(lines) == caught.value.messages
        assert all(LINE.fullmatch(line) for line in lines)
        assert "pydantic" not in str(caught.value)
        return [line.removeprefix("grid.yaml:") for line in lines]

    return refuse


KINDS_RULE = "expected one of constant, exponential, linear, cosine, step, increasing, learned, decoupled"
HEAD = "estimators: [straight_through]\nseeds: [0]\n"
PROBLEMS = {
    # unknown and misspelt keys
    "misspelt key": (
        HEAD + "trainin: {}",
        "3:1: trainin: expected a key of the grid, got 'trainin'. Did you mean 'training'?",
    ),
    "singular key": (
        HEAD + "device: cpu",
        "3:1: device: expected a key of the grid, got 'device'. Did you mean 'devices'?",
    ),
    "misspelt setting": (
        HEAD + "training:\n  epoch: 3\n",
        "4:3: training.epoch: expected a key of training, got 'epoch'. Did you mean 'epochs'?",
    ),
    "unknown setting": (
        HEAD + "data: {xyz: 3}",
        "3:8: data.xyz: expected a key of data, got 'xyz'. Known: name, binarization, validation_fraction, split_seed, "
        "train_size.",
    ),
    "merge key": (
        HEAD + "data: {<<: {name: mnist}}",
        "3:8: data.<<: expected a key of data, got '<<'. Known: name, binarization, validation_fraction, split_seed, "
        "train_size.",
    ),
    # wrong types: nothing is converted
    "text for a whole number": (
        HEAD + 'model: {n_latents: "3"}',
        "3:20: model.n_latents: expected a whole number, got '3'.",
    ),
    "float for a whole number": (
        HEAD + "model: {n_latents: 3.0}",
        "3:20: model.n_latents: expected a whole number, got 3.0.",
    ),
    "true for a whole number": (
        HEAD + "model: {n_latents: true}",
        "3:20: model.n_latents: expected a whole number, got true.",
    ),
    "true for a number": (HEAD + "training: {lr: [0.1, true]}", "3:22: training.lr[1]: expected a number, got true."),
    "text for a number": (HEAD + "training: {lr: fast}", "3:16: training.lr: expected a number, got 'fast'."),
    "null for a number": (HEAD + "training: {lr: }", "3:15: training.lr: expected a number, got null."),
    "number for a text": (HEAD + "name: 3", "3:7: name: expected text, got 3."),
    "mapping for a number": (HEAD + "training: {lr: {a: 1}}", "3:16: training.lr: expected a number, got {'a': 1}."),
    "list in a list": (HEAD + "training: {lr: [[1]]}", "3:17: training.lr[0]: expected a number, got [1]."),
    "text for a section": (HEAD + "training: fast", "3:11: training: expected a mapping, got 'fast'."),
    "null for a section": (HEAD + "training:", "3:10: training: expected a mapping, got null."),
    "text for hidden": (HEAD + "model: {hidden: 512}", "3:17: model.hidden: expected a list, got 512."),
    "hidden without layers": (
        HEAD + "model: {hidden: []}",
        "3:17: model.hidden: expected a list of at least 1, got [].",
    ),
    "hidden mixed": (HEAD + "model: {hidden: [[512], 256]}", "3:25: model.hidden[1]: expected a list, got 256."),
    "hidden with text": (HEAD + "model: {hidden: [8, x]}", "3:17: model.hidden[1]: expected a whole number, got 'x'."),
    "unknown choice": (
        HEAD + "training: {optimizer: adm}",
        "3:23: training.optimizer: expected one of adam, radam, adamw, sgd, got 'adm'. Did you mean 'adam'?",
    ),
    "unknown data set": (
        HEAD + "data: {name: minst}",
        "3:14: data.name: expected one of mnist-mini, mnist, fashion-mnist, kmnist, emnist-letters, omniglot, "
        "got 'minst'. Did you mean 'mnist'?",
    ),
    # impossible values
    "tau 0": (
        HEAD + "schedules:\n  - {kind: constant, tau: [0.5, 0]}",
        "4:33: schedules[0].tau[1]: expected a value > 0, got 0.",
    ),
    "tau below 0": (
        HEAD + "schedules:\n  - kind: constant\n    tau: -1.5\n",
        "5:10: schedules[0].tau: expected a value > 0, got -1.5.",
    ),
    "tau infinite": (
        HEAD + "schedules: [{kind: constant, tau: .inf}]",
        "3:35: schedules[0].tau: expected a finite number, got inf.",
    ),
    "tau nan": (
        HEAD + "schedules: [{kind: constant, tau: .nan}]",
        "3:35: schedules[0].tau: expected a finite number, got nan.",
    ),
    "tau too large to be finite": (
        HEAD + "schedules: [{kind: constant, tau: 1e999}]",
        "3:35: schedules[0].tau: expected a finite number, got inf.",
    ),
    "one class": (HEAD + "model: {n_categories: 1}", "3:23: model.n_categories: expected a value >= 2, got 1."),
    "lr 0": (HEAD + "training: {lr: 0}", "3:16: training.lr: expected a value > 0, got 0."),
    "all images for validation": (
        HEAD + "data: {validation_fraction: 1}",
        "3:29: data.validation_fraction: expected a value < 1, got 1.",
    ),
    "no images for validation": (
        HEAD + "data: {validation_fraction: 0}",
        "3:29: data.validation_fraction: expected more than 0 with evaluation.validation_split validation, got 0. "
        "Set validation_split: train or test, or keep some images for validation.",
    ),
    "momentum without sgd": (
        HEAD + "training: {momentum: [0, 0.9]}",
        "3:26: training.momentum[1]: expected 0 with optimizer adam, got 0.9. "
        "Use optimizer: sgd, or leave momentum out.",
    ),
    "floor above initial": (
        HEAD + "schedules: [{kind: exponential, rate: 1, floor: 2}]",
        "3:49: schedules[0].floor: expected at most initial (1), got 2.",
    ),
    "floor by default above initial": (
        HEAD + "schedules: [{kind: exponential, rate: 1, initial: 0.1}]",
        "3:13: schedules[0].floor: expected at most initial (0.1), got 0.5.",
    ),
    "increasing that does not": (
        HEAD + "schedules: [{kind: increasing, growth: 1, floor: 1}]",
        "3:50: schedules[0].floor: expected less than initial, so that the slope can grow, got 1.",
    ),
    "unknown device": (
        "estimators: [rloo]\nseeds: [0]\ndevices: [cpu, cuda0]",
        "3:16: devices[1]: expected cpu, cuda, cuda:N or mps, got 'cuda0'. Did you mean 'cuda:0'?",
    ),
    "bad name": (
        HEAD + "name: ../x",
        "3:7: name: expected 1 to 64 letters, digits, '-', '_' and '.', of which the first is a letter or digit, "
        "got '../x'.",
    ),
    "huge whole number": (
        HEAD + f"model: {{n_latents: {10**40}}}",
        f"3:20: model.n_latents: expected a value <= 1000000000, got {10**40}.",
    ),
    # schedules
    "no kind": (
        HEAD + "schedules: [{tau: 1}]",
        f"3:13: schedules[0].kind: {KINDS_RULE}, got no kind.",
    ),
    "unknown kind": (
        HEAD + "schedules: [{kind: cosin, final: 1}]",
        f"3:20: schedules[0].kind: {KINDS_RULE}, got 'cosin'. Did you mean 'cosine'?",
    ),
    "kind none": (
        HEAD + "schedules: [none]",
        f"3:13: schedules[0].kind: {KINDS_RULE}, got 'none'.",
    ),
    "key of another kind": (
        HEAD + "schedules: [{kind: linear, final: 1, floor: 1}]",
        "3:38: schedules[0].floor: expected a key of schedules[0], got 'floor'. "
        "Known: label, initial, every, unit, kind, final.",
    ),
    "required key": (
        HEAD + "schedules: [linear]",
        "3:13: schedules[0].final: expected a value for final, got none.",
    ),
    "no schedules": (HEAD + "schedules: []", "3:12: schedules: expected a list of at least one schedule, got []."),
    "schedule without a list": (
        HEAD + "schedules: {kind: constant}",
        "3:12: schedules: expected a list of at least one schedule, got {'kind': 'constant'}.",
    ),
    # estimators
    "misspelt estimator": (
        "seeds: [0]\nestimators:\n  - gumbel_sofmax\n",
        f"3:5: estimators[0]: expected one of {NAMES} names, got 'gumbel_sofmax'. Did you mean 'gumbel_softmax'?",
    ),
    "misspelt estimator in a mapping": (
        "seeds: [0]\nestimators:\n  - {n_samples: 2, name: rlo}\n",
        f"3:26: estimators[0].name: expected one of {NAMES} names, got 'rlo'. Did you mean 'rloo'?",
    ),
    "unknown estimator": (
        "seeds: [0]\nestimators: [x]",
        f"2:14: estimators[0]: expected one of {NAMES} names, got 'x'. Known: {', '.join(REGISTRY)}."
        " One of your own needs --plugin FILE.",
    ),
    "estimator without a name": (
        "seeds: [0]\nestimators: [{n_samples: 2}]",
        "2:14: estimators[0].name: expected the name of an estimator, got none.",
    ),
    "number for an estimator": ("seeds: [0]\nestimators: [3]", "2:14: estimators[0]: expected a mapping, got 3."),
    "misspelt parameter": (
        "seeds: [0]\nestimators: [{name: rloo, n_sample: 4}]",
        "2:27: estimators[0].n_sample: expected a key of estimators[0], got 'n_sample'. Did you mean 'n_samples'?",
    ),
    "impossible parameter": (
        "seeds: [0]\nestimators: [{name: rloo, n_samples: [4, 1]}]",
        "2:42: estimators[0].n_samples[1]: expected a whole number n_samples >= 2, got 1.",
    ),
    "text for a parameter": (
        "seeds: [0]\nestimators: [{name: rloo, n_samples: '4'}]",
        "2:38: estimators[0].n_samples: expected a whole number n_samples >= 2, got '4'.",
    ),
    "mapping for a parameter": (
        "seeds: [0]\nestimators: [{name: rloo, n_samples: {a: 1}}]",
        "2:38: estimators[0].n_samples: expected a plain value, got {'a': 1}.",
    ),
    "infinite parameter": (
        "seeds: [0]\nestimators: [{name: rloo, n_samples: .inf}]",
        "2:38: estimators[0].n_samples: expected a finite number, got inf.",
    ),
    "tau as a parameter": (
        "seeds: [0]\nestimators: [{name: softmax, tau: 0.5}]",
        "2:30: estimators[0].tau: expected no tau here, got 0.5. "
        "The temperature belongs to the schedule: write schedules: [{kind: constant, tau: 0.5}] instead.",
    ),
    "shape": (
        "seeds: [0]\nmodel: {n_latents: [2, 30]}\nestimators: [rloo, exact]",
        None,  # the words are the estimator's
    ),
    "no estimators": (
        "seeds: [0]",
        "1:1: estimators: expected a list of at least one estimator, got none. Add estimators: [straight_through].",
    ),
    "empty estimators": (
        "seeds: [0]\nestimators: []",
        "2:13: estimators: expected a list of at least one estimator, got [].",
    ),
    # seeds
    "no seeds": (
        "estimators: [rloo]",
        "1:1: seeds: expected a list of at least one seed, got none. Add seeds: [0, 1, 2].",
    ),
    "empty seeds": ("estimators: [rloo]\nseeds: []", "2:8: seeds: expected a list of at least one seed, got []."),
    "one seed without a list": (
        "estimators: [rloo]\nseeds: 3",
        "2:8: seeds: expected a list of at least one seed, got 3.",
    ),
    "seed below 0": (
        "estimators: [rloo]\nseeds: [0, -1]",
        "2:12: seeds[1]: expected a whole number from 0 to 4294967295, got -1.",
    ),
    "float seed": (
        "estimators: [rloo]\nseeds: [1.0]",
        "2:9: seeds[0]: expected a whole number from 0 to 4294967295, got 1.0.",
    ),
    "count 0": (
        "estimators: [rloo]\nseeds: {count: 0}",
        "2:16: seeds.count: expected a whole number from 1 to 100000, got 0.",
    ),
    "no count": ("estimators: [rloo]\nseeds: {first: 0}", "2:8: seeds.count: expected the number of seeds, got none."),
    "unknown key of seeds": (
        "estimators: [rloo]\nseeds: {count: 1, frist: 0}",
        "2:19: seeds.frist: expected a key of seeds, got 'frist'. Did you mean 'first'?",
    ),
    # empty axes
    "empty axis": (
        HEAD + "training: {lr: []}",
        "3:16: training.lr: expected a value or a list of at least one, got [].",
    ),
    "empty parameter axis": (
        "seeds: [0]\nestimators: [{name: rloo, n_samples: []}]",
        "2:38: estimators[0].n_samples: expected a value or a list of at least one, got [].",
    ),
    "empty devices": (HEAD + "devices: []", "3:10: devices: expected a list of at least one device, got []."),
    # duplicates
    "estimator twice": (
        "seeds: [0]\nestimators:\n  - rloo\n  - straight_through\n  - rloo\n",
        "5:5: estimators[2]: expected each run once, got 'rloo' again (first: estimators[0] on line 3).",
    ),
    "default written out": (
        "seeds: [0]\nestimators: [straight_through, {name: straight_through, n_samples: 1}]",
        "2:32: estimators[1]: expected each run once, got 'straight_through' again (first: estimators[0] on line 2).",
    ),
    "same value in other words": (
        HEAD + "training: {lr: [1e-3, 0.001]}",
        "3:23: training.lr[1]: expected each run once, got 0.001. The same setting: training.lr[0] on line 3.",
    ),
    "same row": (
        HEAD + "zip: [{training.lr: [1, 2, 1.0], model.n_latents: [3, 4, 3]}]",
        "3:28: zip[0].training.lr[2]: expected each run once, got 1.0. "
        "The same setting: zip[0].training.lr[0] on line 3.",
    ),
    "schedule twice": (
        HEAD + "schedules: [{kind: constant, tau: [1, 0.5]}, {kind: constant, label: again}]",
        "3:46: schedules[1]: expected each run once, got 'again' again (first: schedules[0] on line 3).",
    ),
    "label twice": (
        "seeds: [0]\nestimators: [{name: rloo, n_samples: [2, 3], label: mine}]",
        "2:14: estimators[0]: expected a label of its own, got 'mine' again (first: estimators[0] on line 2).",
    ),
    "seed twice": (
        "estimators: [rloo]\nseeds: [0, 1, 0]",
        "2:15: seeds[2]: expected each value once, got 0. First: seeds[0] on line 2.",
    ),
    "device twice": (
        HEAD + "devices: [cpu, cpu]",
        "3:16: devices[1]: expected each value once, got 'cpu'. First: devices[0] on line 3.",
    ),
    # zip
    "zip of unequal length": (
        HEAD + "zip:\n  - training.lr: [1, 2]\n    model.n_latents: [1, 2, 3]\n",
        "5:5: zip[0].model.n_latents: expected as many values as training.lr (2), got 3.",
    ),
    "unknown path": (
        HEAD + "zip: [{training.lrr: [1, 2]}]",
        "3:8: zip[0].training.lrr: expected the path of a setting, got 'training.lrr'. Did you mean 'training.lr'?",
    ),
    "no path": (
        HEAD + "zip: [{seeds: [1, 2]}]",
        "3:8: zip[0].seeds: expected the path of a setting, got 'seeds'. "
        "Write it as section.setting, such as training.lr.",
    ),
    "zip and section": (
        HEAD + "training: {lr: 1}\nzip: [{training.lr: [1, 2]}]",
        "4:8: zip[0].training.lr: expected each setting once, got it again (first: training.lr on line 3).",
    ),
    "zip of one value": (
        HEAD + "zip: [{training.lr: 1}]",
        "3:21: zip[0].training.lr: expected a list of values, got 1.",
    ),
    "zip of a bad value": (
        HEAD + "zip: [{training.lr: [1, 0]}]",
        "3:25: zip[0].training.lr[1]: expected a value > 0, got 0.",
    ),
    "zip without a list": (
        HEAD + "zip: {training.lr: [1, 2]}",
        "3:6: zip: expected a list of at least one group, got {'training.lr': [1, 2]}.",
    ),
    "empty group": (HEAD + "zip: [{}]", "3:7: zip[0]: expected a mapping of at least one setting, got {}."),
    # limits
    "too many runs": (
        "estimators: [rloo]\nseeds: {count: 50000}\ndata: {split_seed: [0, 1, 2]}",
        "1:1: grid: expected at most 100000 runs, got 150000.",
    ),
    "too many combinations": (
        "seeds: [0]\nestimators: [rloo]\nschedules:\n  - {kind: exponential, "
        + ", ".join(f"{key}: {[i / 1000 + 0.001 for i in range(50)]}" for key in ("initial", "rate", "floor"))
        + "}",
        "4:5: schedules[0]: expected at most 100000 combinations, got 125000.",
    ),
}


@pytest.mark.parametrize(("text", "expected"), PROBLEMS.values(), ids=list(PROBLEMS))
def test_a_problem_is_one_line(refuse, text, expected):
    lines = refuse(text)
    assert len(lines) == 1
    if expected:
        assert lines[0] == expected


def test_a_shape_that_an_estimator_cannot_work_on_names_the_estimator(refuse):
    [line] = refuse(PROBLEMS["shape"][0])
    assert line.startswith("3:20: estimators[1]: expected ")
    assert "30" in line or "1e" in line or "10" in line


FILES = {
    "empty": (b"", "1:1: file: expected a mapping of sections, got an empty file."),
    "comments": (b"# nothing\n---\n", "1:1: file: expected a mapping of sections, got an empty file."),
    "list": (b"- a\n- b\n", "1:1: grid: expected a mapping, got ['a', 'b']."),
    "text": (b"hello", "1:1: grid: expected a mapping, got 'hello'."),
    "number": (b"\n\n  3", "3:3: grid: expected a mapping, got 3."),
    "unclosed list": (
        b"seeds: [0\nname: x",
        "2:5: file: expected YAML, got a syntax error: expected ',' or ']', but got ':'.",
    ),
    "bad indentation": (
        b"a:\n  b: 1\n c: 2\n",
        "3:2: file: expected YAML, got a syntax error: expected <block end>, but found '<block mapping start>'.",
    ),
    "tab": (
        b"data:\n\tname: x",
        "2:1: file: expected YAML, got a syntax error: found character '\\t' that cannot start any token.",
    ),
    "binary": (b"\x89PNG\r\n\x1a\n\x00", "1:1: file: expected text in UTF-8, got the byte 0x89."),
    "latin-1": ("name: x\nquestion: für".encode("latin-1"), "2:12: file: expected text in UTF-8, got the byte 0xfc."),
    "control characters": (b"name: a\nx: \x07", "2:4: file: expected YAML text, got the character '\\x07'."),
    "python": (
        b"a: !!python/object/apply:os.system [ls]",
        "1:4: file: expected no YAML tags, got 'tag:yaml.org,2002:python/object/apply:os.system'.",
    ),
    "two documents": (b"a: 1\n---\nb: 2\n", "2:1: file: expected one YAML document, got a second one."),
    "key twice": (b"name: a\nname: b\n", "2:1: file: expected each key once, got 'name' again (line 1)."),
    "key that is a number": (b"1: 2", "1:1: file: expected a key that is text, got 1."),
    "unknown alias": (b"a: *b", "1:4: file: expected an anchor defined above, got '*b'."),
    "recursive alias": (b"a: &b [*b]", "1:8: file: expected an anchor defined above, got '*b'."),
    "deep": (b"[" * 100, "1:21: file: expected at most 20 levels of nesting, got more."),
    "too large": (b"# " + b"x" * 1_000_000, "1:1: file: expected a file of at most 1000000 bytes, got more."),
    "half a character": (b'name: "\\ud800"', "1:7: file: expected text, got half of a surrogate pair."),
    "impossible escape": (
        b'name: "\\Uffffffff"',
        "1:1: file: expected YAML, got text that cannot be read: OverflowError.",
    ),
}


@pytest.mark.parametrize(("raw", "expected"), FILES.values(), ids=list(FILES))
def test_a_file_that_is_no_grid_is_one_line(refuse, raw, expected):
    assert refuse(raw) == [expected]


def test_a_small_file_cannot_grow_into_a_large_one(refuse):
    nine = ",".join(["*a"] * 9)
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{name}: &{name} [{nine.replace('a', before)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    [line] = refuse(bomb)
    assert "file: expected at most 20000 values, got more." in line


def test_a_missing_file_a_folder_and_an_unreadable_file(tmp_path, monkeypatch):
    def refusal(path: Path) -> str:
        with pytest.raises(GridError) as caught:
            load_grid(path, REGISTRY)
        [line] = caught.value.messages
        assert LINE.fullmatch(line)
        return line.removeprefix(str(path))

    missing = tmp_path / "no.yaml"
    assert refusal(missing) == ":1:1: file: expected a readable grid file, got 'no such file or directory'."
    assert refusal(tmp_path) == ":1:1: file: expected a grid file, got a directory."
    assert "expected a readable grid file" in refusal(missing / "x")
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert refusal(missing) == ":1:1: file: expected a readable grid file, got 'permission denied'."


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
