"""Any file is a valid grid or a GridError with a position in every line; no other exception is raised."""

import re
import resource
import time
from pathlib import Path

import pytest
import yaml
from grid_errors import LINE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estimators import REGISTRY, build
from harness.config import RunConfig
from harness.grid.load import KEYS, Grid, GridError, load_grid
from harness.grid.sections import PATHS
from harness.schedules import KINDS

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
  - name: reinmax
    training: {lr: 5e-4, momentum: 0}
    model: {hidden: [8]}
    schedule: {kind: constant, tau: [1.3, 1.0]}
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
    st.sampled_from(["training", "schedule", "model", "schedules", "lr", "reinmax", "hidden", "rloo"]),
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


def load_or_refuse(path) -> Grid | GridError:
    try:
        return load_grid(path, REGISTRY)
    except GridError as error:
        return error


def assert_valid_grid_or_readable_refusal(found: Grid | GridError) -> None:
    """Assert that each line of a refusal has a place, or that the runs of a grid differ and can be built."""
    if isinstance(found, GridError):
        assert found.messages
        assert all(LINE.fullmatch(line) for line in found.messages)
        assert str(found).splitlines() == list(found.messages)
        return
    assert len({run.key for run in found.runs}) == len(found.runs) > 0
    assert len({run.name for run in found.runs}) == len(found.runs)
    run = found.runs[-1]
    assert RunConfig.from_json(run.to_json()) == run
    run.build_estimator(REGISTRY)
    run.flat()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "grid.yaml"


def test_the_grid_to_be_mutated_is_valid_without_exact(path):
    path.write_text(GRID)
    found = load_or_refuse(path)
    assert_valid_grid_or_readable_refusal(found)
    assert isinstance(found, GridError)
    path.write_text(GRID.replace("  - exact\n", ""))
    found = load_or_refuse(path)
    assert_valid_grid_or_readable_refusal(found)
    assert isinstance(found, Grid)
    assert len(found.runs) == (2 * 2 * 2 * (4 + 1 + 2) + 2 * 2) * 2 * 2


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits)
def test_a_mutated_grid_is_a_grid_or_is_refused(path, changes):
    path.write_bytes(mutated(changes).replace("  - exact\n", "").encode("utf-8", "surrogatepass"))
    assert_valid_grid_or_readable_refusal(load_or_refuse(path))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_are_a_grid_or_are_refused(path, raw):
    path.write_bytes(raw)
    assert_valid_grid_or_readable_refusal(load_or_refuse(path))


keys = st.sampled_from([*KEYS, "kind", "tau", "n_samples", "lr", "training.lr", "count"])
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.sampled_from(["rloo", "step", "x", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), plain))
def test_any_values_are_a_grid_or_are_refused(path, values):
    path.write_text(yaml.safe_dump({"estimators": ["rloo"], "seeds": [0], **values}))
    assert_valid_grid_or_readable_refusal(load_or_refuse(path))


# --- 2,000 grids: valid, mutated and hostile, each in bounded time and memory ----------------------------------------

SECONDS = 10.0
"""More than any text of a megabyte takes; a grid that hangs takes more."""
MEGABYTES = 300


def fits(name: str) -> bool:
    """Whether an estimator works on the model of a grid that does not say another."""
    try:
        build(name).check_shape(20, 10)
    except ValueError:
        return False
    return True


FREE = list(filter(fits, REGISTRY))
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
rates = st.sampled_from([1e-2, 1e-3, 3e-4])
good = st.fixed_dictionaries(
    {
        "estimators": st.lists(st.sampled_from(FREE), min_size=1, max_size=4, unique=True),
        "seeds": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4, unique=True),
    },
    optional={
        "name": names,
        "question": st.text("abc <>&'\"$\\{}é…", max_size=30),
        "training": st.fixed_dictionaries({"lr": st.lists(rates, min_size=1, max_size=3, unique=True)}),
        "schedules": st.lists(st.sampled_from([0.1, 0.5, 1.0]), min_size=1, max_size=3, unique=True).map(
            lambda taus: [{"kind": "constant", "tau": tau} for tau in taus]
        ),
        "devices": st.lists(st.sampled_from(["cpu", "cuda", "cuda:3", "mps"]), min_size=1, max_size=2, unique=True),
    },
)


def doubled(n: int) -> str:
    """Aliases that double a list `n` times."""
    return "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(n))


huge = st.integers(10**5, 10**18)
texts = st.text(st.characters(), max_size=40)
sizes = "estimators: [{}]\nseeds: [0]\nmodel: {{n_latents: {}, n_categories: {}}}\n"
rest = "estimators: [rloo]\nseeds: [0]\n"
signs = st.sampled_from([*"[{-?:&*!|>'\"#%@` \n\t", "- ", "{a: ", "[["])
paths = st.sampled_from(["../x", "/etc/passwd", ".", "a/b", "~", "mnist/", "..\\x"])
hostile_texts = st.one_of(
    st.builds(f"name: {{}}\n{rest}".format, paths),
    st.builds(f"data: {{{{name: {{!r}}}}}}\n{rest}".format, paths),
    st.builds(sizes.format, st.sampled_from(sorted(REGISTRY)), huge, huge),
    st.builds("estimators: [{{name: rloo, n_samples: {}}}]\nseeds: {{count: {}}}\n".format, huge, huge),
    st.builds(lambda n, sign: sign * n, st.integers(1, 200_000), signs),
    st.integers(2, 60).map(doubled),
    st.integers(1, 30_000).map(lambda n: "".join(f"k{i}: &a{i} 1\n" for i in range(n))),
    st.builds("estimators: [rloo]\nseeds: [{}]\n".format, st.integers(1, 100_000).map(lambda n: "9" * n)),
    st.builds("estimators: [{{name: rloo, label: {!r}}}]\nseeds: [0]\n".format, texts),
    st.builds("? {}\n: !!python/object/apply:os.system [touch /tmp/escaped]\n".format, texts),
    st.binary(max_size=2000).map(lambda raw: raw.decode("latin-1")),
)
generated = st.one_of(
    good.map(lambda values: (yaml.safe_dump(values), True)),
    edits.map(lambda changes: (mutated(changes).replace("  - exact\n", ""), False)),
    hostile_texts.map(lambda text: (text, False)),
)


def encoded(text: str) -> bytes:
    """Return the bytes of a file: lone surrogates stand for bytes that are no UTF-8, or become such."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def check_generated(path, case: tuple[str, bool]) -> None:
    text, is_good = case
    path.write_bytes(encoded(text))
    begun = time.process_time()
    found = load_or_refuse(path)
    assert_valid_grid_or_readable_refusal(found)
    assert time.process_time() - begun < SECONDS
    assert isinstance(found, Grid) or not is_good, path.read_text()


def check_many(path, n_grids: int) -> None:
    load_grid_once(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = settings(max_examples=n_grids, deadline=None, suppress_health_check=list(HealthCheck))(
        given(generated)(lambda case: check_generated(path, case))
    )
    run()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB more"
    assert not Path("/tmp/escaped").exists()  # noqa: S108


def load_grid_once(path) -> None:
    """What the first grid loads is not the grids' own."""
    path.write_text("estimators: [rloo]\nseeds: [0]\n")
    found = load_or_refuse(path)
    assert isinstance(found, Grid)
    assert_valid_grid_or_readable_refusal(found)
    assert len(found.runs) == 1


def test_100_grids_take_bounded_time_and_memory(path):
    check_many(path, 100)


@pytest.mark.slow
def test_2000_grids_take_bounded_time_and_memory(path):
    check_many(path, 2000)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_model_of_any_size_is_a_grid_or_is_refused_at_once(path, name):
    """3,000,000 latents of 1,000,000 classes: the number of codes has 18 million digits and is not to be computed."""
    for size in (10**6, 3 * 10**6, 10**9):
        path.write_text(f"estimators: [{name}]\nseeds: [0]\nmodel: {{n_latents: {size}, n_categories: {10**6}}}\n")
        begun = time.process_time()
        assert_valid_grid_or_readable_refusal(load_or_refuse(path))
        assert time.process_time() - begun < 1
