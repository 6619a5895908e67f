"""A problem with a setting is one line: an unknown key, a wrong type, an impossible value."""

import pytest
from grid_errors import HEAD

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
        "train_size, path, size.",
    ),
    "merge key": (
        HEAD + "data: {<<: {name: mnist}}",
        "3:8: data.<<: expected a key of data, got '<<'. Known: name, binarization, validation_fraction, split_seed, "
        "train_size, path, size.",
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
        "mnist-binarized, file, folder, got 'minst'. Did you mean 'mnist'? One of your own needs --plugin FILE.",
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
    "warm-up as long as the run": (
        HEAD + "training: {epochs: [20, 10], lr_warmup: 10}",
        "3:41: training.lr_warmup: expected fewer epochs than the 10 of the run, got 10.",
    ),
    "warm-up below 0": (HEAD + "training: {lr_warmup: -1}", "3:23: training.lr_warmup: expected a value >= 0, got -1."),
    "best epoch by the test images": (
        HEAD + "evaluation: {validation_split: [validation, test], checkpoint: best}",
        "3:64: evaluation.checkpoint: expected last with validation_split test, got best. "
        "Choose by validation or train.",
    ),
    "binarisation of binary images": (
        HEAD + "data: {name: mnist-binarized, binarization: fixed}",
        "3:45: data.binarization: expected none with data mnist-binarized, whose images are binary, got fixed. Leave it"
        " out.",
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
}


@pytest.mark.parametrize(("text", "expected"), PROBLEMS.values(), ids=list(PROBLEMS))
def test_a_problem_with_a_setting_is_one_line(refuse, text, expected):
    assert refuse(text) == [expected]
