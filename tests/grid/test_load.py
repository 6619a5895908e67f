"""A grid file becomes exactly the runs that it describes, in order, each with its own key and name."""

import time
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from estimators import REGISTRY
from harness.config import RunConfig
from harness.grid.load import Grid, GridError, load_grid
from harness.plugins.registry import load_registry
from harness.schedules import Constant, Exponential, NoSchedule

MINIMAL = "estimators: [straight_through]\nseeds: [0]\n"


@pytest.fixture
def load(tmp_path):
    def load(text: str, name: str = "grid.yaml", registry=REGISTRY) -> Grid:
        path = tmp_path / name
        path.write_text(text)
        return load_grid(path, registry)

    return load


def test_the_smallest_grid_is_one_run_of_defaults(load):
    grid = load(MINIMAL)
    assert [one.key for one in grid.runs] == [RunConfig(estimator=grid.runs[0].estimator).key]
    assert grid.runs[0].schedule == Constant(tau=1.0)
    assert grid.runs[0].label == "straight_through · constant(1)"
    assert (grid.name, grid.text, grid.question, grid.notes) == ("grid", MINIMAL, "", ())


def test_everything_is_crossed_and_seeds_are_outermost(load):
    grid = load(
        """
name: my-grid_1.0
question: Which?
description: Why.
training: {lr: [1e-3, 3e-4], epochs: 2}
model: {hidden: [[8], [8, 4]]}
estimators: [straight_through, {name: rloo, n_samples: [2, 4]}]
schedules:
  - {kind: constant, tau: [0.5, 1]}
  - {kind: exponential, rate: 3e-5}
devices: [cpu, cuda]
seeds: [3, 1]
"""
    )
    assert (grid.name, grid.question, grid.description) == ("my-grid_1.0", "Which?", "Why.")
    assert len(grid.runs) == 2 * 2 * (3 + 2) * 2 * 2
    assert [run.seed for run in grid.runs] == [3] * 40 + [1] * 40
    assert len({run.key for run in grid.runs}) == len({run.name for run in grid.runs}) == 80
    assert {(run.training.lr, run.model.hidden, run.device) for run in grid.runs} == set(
        product((1e-3, 3e-4), ((8,), (8, 4)), ("cpu", "cuda"))
    )
    assert grid.runs[0].name == "straight_through · constant(0.5) · hidden=[8] · lr=0.001 · device=cpu · seed 3"
    assert grid.runs[0].training.epochs == 2


def test_an_estimator_without_tau_collapses_the_schedules_and_says_so(load):
    grid = load("estimators: [reinforce, straight_through]\nseeds: [0]\nschedules: [{kind: constant, tau: [0.5, 1.0]}]")
    assert grid.notes == ("reinforce ignores tau: 1 schedule instead of 2",)
    assert [run.label for run in grid.runs] == [
        "reinforce",
        "straight_through · constant(0.5)",
        "straight_through · constant(1)",
    ]
    assert grid.runs[0].schedule == NoSchedule()


def test_zipped_settings_change_together_and_groups_are_crossed(load):
    grid = load(
        MINIMAL
        + """
zip:
  - {training.lr: [1e-3, 5e-4], model.n_latents: [10, 20]}
  - {data.name: [mnist-mini, mnist, kmnist], model.hidden: [[4], [5], [6]]}
evaluation: {n_images: [0, 1]}
"""
    )
    seen = {(r.training.lr, r.model.n_latents, r.data.name, r.model.hidden, r.evaluation.n_images) for r in grid.runs}
    assert len(grid.runs) == len(seen) == 2 * 3 * 2
    assert {(lr, n) for lr, n, *_ in seen} == {(1e-3, 10), (5e-4, 20)}
    assert {(name, hidden) for _, _, name, hidden, _ in seen} == {
        ("mnist-mini", (4,)),
        ("mnist", (5,)),
        ("kmnist", (6,)),
    }
    assert "data=mnist-mini" in grid.runs[0].label


def test_settings_that_are_only_valid_together_can_be_zipped(load):
    grid = load(MINIMAL + "zip: [{training.optimizer: [adam, sgd], training.momentum: [0, 0.9]}]")
    assert [(run.training.optimizer, run.training.momentum) for run in grid.runs] == [("adam", 0.0), ("sgd", 0.9)]


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [("[5, 0]", [5, 0]), ("{count: 3}", [0, 1, 2]), ("{first: 7, count: 2}", [7, 8]), ("[4294967295]", [2**32 - 1])],
)
def test_seeds(load, seeds, expected):
    assert [run.seed for run in load(f"estimators: [rloo]\nseeds: {seeds}").runs] == expected


def test_numbers_with_exponents_are_numbers(load):
    grid = load(MINIMAL + "training: {lr: [1e-3, 1E-4, 2.5e-3, .5]}")
    assert [run.training.lr for run in grid.runs] == [1e-3, 1e-4, 2.5e-3, 0.5]


def test_a_setting_may_be_null(load):
    grid = load(MINIMAL + "training: {grad_clip: [null, 1]}")
    assert [run.training.grad_clip for run in grid.runs] == [None, 1.0]
    assert [run.label for run in grid.runs] == [
        f"straight_through · constant(1) · grad_clip={c}" for c in ("none", "1")
    ]


def test_labels_replace_the_automatic_ones(load):
    grid = load(
        """
estimators: [{name: rloo, n_samples: 8, label: RLOO-8}, {name: rloo, n_samples: 4}, {name: rloo, n_samples: 2}]
seeds: [0]
"""
    )
    default = REGISTRY["rloo"]().n_samples
    assert [run.label for run in grid.runs] == [
        "RLOO-8",
        *("rloo" if n == default else f"rloo(n_samples={n})" for n in (4, 2)),
    ]
    grid = load(MINIMAL + "schedules: [{kind: exponential, rate: 1e-4, label: Jang}]")
    assert grid.runs[0].label == "straight_through · Jang"


def test_a_default_written_out_is_the_same_run(load):
    short = load(MINIMAL).runs[0]
    long = load(
        "estimators: [{name: straight_through, n_samples: 1}]\nseeds: [0]\nschedules: [constant]\ntraining: {lr: 0.001}"
    ).runs[0]
    assert long.key == short.key
    assert long.label == short.label


def test_names_lists_sweep_like_every_other_list(load):
    grid = load("estimators: [{name: [reinforce, rloo], n_samples: [2, 3]}]\nseeds: [0]")
    assert [(run.estimator.name, run.estimator.params["n_samples"]) for run in grid.runs] == [
        ("reinforce", 2),
        ("reinforce", 3),
        ("rloo", 2),
        ("rloo", 3),
    ]


def test_the_name_comes_from_the_file(load):
    assert load(MINIMAL, "my grid, 2nd.yaml").name == "my-grid-2nd"
    assert load(MINIMAL, "ü.yaml").name == "grid"


def test_aliases_work(load):
    grid = load("estimators: &e [rloo]\nseeds: &s [0, 1]\nzip: [{data.split_seed: *s}]")
    assert len(grid.runs) == 4


def test_the_seed_recipe_is_ordinary_options(load):
    grid = load(
        MINIMAL + "schedules: [{kind: exponential, initial: 1, rate: 3e-5, floor: 0.5, every: 100, offset: 1,"
        " compounding: true, restart_each_epoch: true}]"
    )
    schedule = Exponential(rate=3e-5, every=100, offset=1, compounding=True, restart_each_epoch=True)
    assert grid.runs[0].schedule == schedule


def test_runs_survive_the_transfer_to_a_worker(load):
    grid = load(MINIMAL + "training: {lr: [1e-3, 2e-3]}\nschedules: [{kind: cosine, final: 0.1}]")
    for run in grid.runs:
        other = RunConfig.from_json(run.to_json())
        assert (other, other.key, other.name) == (run, run.key, run.name)
        assert other.build_estimator(REGISTRY).tau == 1.0


def test_keys_do_not_depend_on_order_or_neighbours(load):
    one = load("estimators: [rloo, straight_through]\nseeds: [0, 1]\ntraining: {lr: [1e-3, 2e-3]}")
    other = load(
        "training: {lr: [0.002, 0.001, 0.003]}\nseeds: [1, 0, 2]\nestimators: [straight_through, rloo]\n"
        "model: {n_latents: [20, 3], n_categories: [10, 2]}\n"
    )
    assert {run.key for run in one.runs} < {run.key for run in other.runs}


PLUGIN = """
from estimators import Pathwise
class Scaled(Pathwise):
    name = "scaled"
    relaxes = True
    def __init__(self, *, scale: float = 1.0, shift: "float | None" = None, sizes=(1,), tau=1.0):
        super().__init__()
        if scale <= 0: raise ValueError(f"scaled: expected scale > 0, got {scale!r}.")
        self.scale, self.tau = scale, tau
    def sample(self, logits_BLK): return logits_BLK[None]
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def test_a_plugin_is_used_like_a_built_in_and_its_text_is_part_of_the_key(load, plugin):
    text = "estimators: [{name: scaled, scale: [1, 2.0], shift: 1, sizes: [3, 4]}]\nseeds: [0]"
    grid = load(text, registry=load_registry([plugin]))
    assert [run.estimator.params for run in grid.runs] == [
        {"scale": scale, "shift": 1.0, "sizes": (3, 4)} for scale in (1.0, 2.0)
    ]
    assert isinstance(grid.runs[0].estimator.params["shift"], float)
    assert grid.runs[0].label == "scaled(shift=1, sizes=[3, 4]) · constant(1)"
    plugin.write_text(PLUGIN + "\n# changed\n")
    edited = load(text, registry=load_registry([plugin]))
    assert not {run.key for run in grid.runs} & {run.key for run in edited.runs}


def test_loading_leaves_the_random_state_alone(load):
    before = torch.random.get_rng_state()
    load(MINIMAL)
    assert torch.equal(before, torch.random.get_rng_state())


def test_ten_thousand_runs_are_read_in_time(load):
    text = """
estimators: [straight_through, gumbel_softmax, {name: rloo, n_samples: [2, 3, 4, 5, 6, 7, 8, 9]}]
schedules: [{kind: constant, tau: [0.5, 1.0]}, {kind: exponential, rate: [1e-5, 1e-4]}]
training: {lr: [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]}
model: {n_latents: [1, 2, 3, 4, 5]}
seeds: {count: 25}
"""
    start = time.perf_counter()
    grid = load(text)
    assert time.perf_counter() - start < 3
    assert len({run.key for run in grid.runs}) == len(grid.runs) == 10_000


values = st.lists(st.floats(1e-5, 1), min_size=1, max_size=3, unique=True)


@given(values, values, st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True), st.integers(1, 3))
def test_the_number_of_runs_is_the_product_of_the_axes(tmp_path_factory, lrs, taus, samples, n_seeds):
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(
        f"estimators: [{{name: reinforce, n_samples: {samples}}}, straight_through]\nseeds: {{count: {n_seeds}}}\n"
        f"training: {{lr: {lrs}}}\nschedules: [{{kind: constant, tau: {taus}}}]\n"
    )
    grid = load_grid(path, REGISTRY)
    assert len(grid.runs) == len(lrs) * (len(samples) + len(taus)) * n_seeds
    assert len({run.key for run in grid.runs}) == len({run.name for run in grid.runs}) == len(grid.runs)


@pytest.mark.parametrize("name", ["nvil", "rebar", "relax", "double_cv"])
def test_estimators_that_cannot_be_compiled_are_refused_before_the_first_run(load, name):
    text = f"estimators: [{name}]\nseeds: [0]\ntraining: {{compile: VALUE}}"
    with pytest.raises(GridError, match=rf"grid.yaml:1:14: .*where training.compile is on, got '{name}'. Use compile"):
        load(text.replace("VALUE", "on"))
    assert load(text.replace("VALUE", "auto")).runs


def test_a_learned_schedule_cannot_be_compiled(load):
    text = "estimators: [gumbel_softmax]\nschedules: [{kind: learned}]\nseeds: [0]\ntraining: {compile: on}"
    with pytest.raises(GridError, match=r"expected no learned schedule where training\.compile is on"):
        load(text)


def test_tf32_on_the_cpu_is_noted(load):
    text = MINIMAL + "model: {precision: tf32}\ndevices: "
    assert load(text + "[cpu, cuda]").notes == (
        "precision tf32 changes nothing on the CPU: it is a setting of NVIDIA GPUs",
    )
    assert load(text + "[cuda]").notes == ()
