"""A problem with schedules, estimators, seeds, lists of values or zip is one line."""

import pytest
from grid_errors import HEAD

from estimators import REGISTRY

NAMES = len(REGISTRY)
KINDS_RULE = "expected one of constant, exponential, linear, cosine, step, increasing, growing, learned, decoupled"
PROBLEMS = {
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
        "The temperature belongs to the schedule: write schedule: {kind: constant, tau: 0.5} instead.",
    ),
    "tau as a parameter of an estimator with another temperature": (
        "seeds: [0]\nestimators: [{name: mve, tau: 0.5}]",
        "2:26: estimators[0].tau: expected a key of estimators[0], got 'tau'. "
        "Known: name, label, training, schedule, model, t, n_samples, unimix.",
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
def test_a_problem_with_an_axis_is_one_line(refuse, text, expected):
    assert refuse(text) == [expected]


def test_a_shape_that_an_estimator_cannot_work_on_names_the_estimator(refuse):
    [line] = refuse("seeds: [0]\nmodel: {n_latents: [2, 30]}\nestimators: [rloo, exact]")
    assert line.startswith("3:20: estimators[1]: expected ")
    assert "30" in line or "1e" in line or "10" in line
