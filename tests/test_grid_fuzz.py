"""Whatever a file holds, it is a Grid or a GridError with a place in every line; never another exception."""

import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estimators import REGISTRY
from harness.config import RunConfig
from harness.grid import KEYS, GridError, load_grid
from harness.grid_sections import PATHS
from harness.schedules import KINDS

LINE = re.compile(r"[^\n]+:[1-9]\d*:[1-9]\d*: \S[^\n]*: [^\n]+")
GRID = """\
name: fuzz
question: "Which?"
data: {name: mnist-mini, validation_fraction: 0.1}
model: {n_latents: 20, n_categories: 10, hidden: [[512, 256], [8]]}
training:
  epochs: 6
  lr: [1e-3, 3e-4]
  optimizer: sgd
  momentum: 0.9
evaluation: {bound_samples: 64, validation_split: test}
estimators:
  - straight_through
  - {name: rloo, n_samples: 4, label: &x mine}
  - {name: reinforce, n_samples: [2, 4]}
  - exact
schedules:
  - {kind: constant, tau: [0.5, 1.0]}
  - {kind: exponential, initial: 1.0, rate: 3e-5, floor: 0.5, every: 500}
  - {kind: increasing, growth: 0.1}
devices: [cpu, cuda:0]
seeds: {first: 0, count: 2}
zip:
  - {training.batch_size: [100, 50], data.split_seed: [1, 2]}
"""
TOKENS = re.findall(r"\w[\w.:-]*|[^\w\s]|\s+", GRID)
words = st.one_of(
    st.sampled_from([*KEYS, *PATHS, *KINDS, *list(REGISTRY)[:5], "tau", "label", "kind", "name", "count", "source"]),
    st.sampled_from(["0", "1", "-1", "1.5", "1e-3", "1e400", ".inf", ".nan", "true", "null", "~", "''", '"3"']),
    st.sampled_from(["[]", "{}", "[[]]", "[1,[2]]", "{a: 1}", "cuda", "!!str", "&y", "*x"]),
    st.sampled_from(["\n", "  ", "? ", "<<", *"[]{}:,-\t#|>%@'\""]),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.text(max_size=5),
)
edits = st.lists(
    st.tuples(st.integers(0, len(TOKENS) - 1), st.sampled_from(["replace", "insert", "drop"]), words), max_size=4
)


def mutated(changes: list[tuple[int, str, str]]) -> str:
    tokens = list(TOKENS)
    for index, change, word in changes:
        tokens[index] = {"replace": word, "insert": tokens[index] + word, "drop": ""}[change]
    return "".join(tokens)


def check_messages(error: GridError) -> None:
    assert error.messages
    assert all(LINE.fullmatch(line) for line in error.messages)
    assert str(error).splitlines() == list(error.messages)


def outcome(path) -> int:
    """The number of runs, or 0 for a refusal."""
    try:
        grid = load_grid(path, REGISTRY)
    except GridError as error:
        check_messages(error)
        return 0
    assert len({run.key for run in grid.runs}) == len(grid.runs) > 0
    assert len({run.name for run in grid.runs}) == len(grid.runs)
    run = grid.runs[-1]
    assert RunConfig.from_json(run.to_json()) == run
    run.build_estimator(REGISTRY)
    run.flat()
    return len(grid.runs)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "grid.yaml"


def test_the_grid_that_is_mutated_is_fine_but_for_exact(path):
    path.write_text(GRID)
    assert outcome(path) == 0
    path.write_text(GRID.replace("  - exact\n", ""))
    assert outcome(path) == 2 * 2 * 2 * (4 + 1 + 2) * 2 * 2


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits)
def test_a_mutated_grid_is_a_grid_or_is_refused(path, changes):
    path.write_bytes(mutated(changes).replace("  - exact\n", "").encode("utf-8", "surrogatepass"))
    outcome(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_are_a_grid_or_are_refused(path, raw):
    path.write_bytes(raw)
    outcome(path)


keys = st.sampled_from([*KEYS, "kind", "tau", "n_samples", "lr", "training.lr", "count"])
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.sampled_from(["rloo", "step", "x", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), plain))
def test_any_values_are_a_grid_or_are_refused(path, values):
    path.write_text(yaml.safe_dump({"estimators": ["rloo"], "seeds": [0], **values}))
    outcome(path)
