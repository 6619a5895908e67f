"""The order of the settings and their intervals: the numbers of the report, without its libraries."""

import io
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness.config import RunConfig
from harness.events import Diverged, Event, Failed, Finished
from harness.grid.load import Grid
from harness.status.ranking import rank
from harness.status.t_interval import mean_with_interval, t_quantile
from harness.status.terminal_summary import SHOWN, show_results
from harness.storage.sweep_state import Sweep
from reports import comparison
from reports import statistics as st

Make = Callable[..., RunConfig]
Ends = dict[str, Sequence[float | str | None]]


def sweep_of(make: Make, ends: Ends) -> Sweep:
    """A sweep whose settings have these ends by seed: a value, "failed", "diverged", or None for not yet."""
    runs, found = list[RunConfig](), dict[str, Event]()
    for name, values in ends.items():
        for seed, value in enumerate(values):
            run = make("gumbel_softmax", seed=seed)
            run = run.model_copy(update={"estimator": run.estimator.model_copy(update={"custom_label": name})})
            run = run.model_copy(
                update={"seed": seed, "training": run.training.model_copy(update={"lr": 1 + len(runs)})}
            )
            runs.append(run)
            if value is not None:
                found[run.key] = end(value)
    return Sweep(Grid("g", tuple(runs), ""), Path("g"), tuple(runs), ends=found)


def end(value: float | str) -> Event:
    if isinstance(value, str):
        return Failed("ValueError: no", "Traceback") if value == "failed" else Diverged(3, "loss is nan")
    return Finished(8, {"test/neg_elbo": value, "time/total_s": 3.0})


def shown(sweep: Sweep, width: int = 80) -> str:
    out = io.StringIO()
    show_results(Console(file=out, width=width), sweep)
    assert max(map(len, out.getvalue().splitlines())) <= width
    assert "\x1b" not in out.getvalue()
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 10, 31, 100, 1000])
def test_an_interval_is_that_of_the_report(n: int) -> None:
    draw = random.Random(n)  # noqa: S311
    for scale in (1e-6, 1.0, 1e3):
        values = [100 + scale * draw.gauss(0, 1) for _ in range(n)]
        found, expected = mean_with_interval(values), st.t_interval(values)
        assert found is not None
        assert found.mean == pytest.approx(st.mean(values), rel=1e-12)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_the_factor_is_known_for_every_number_of_seeds() -> None:
    from scipy.special import stdtrit

    for freedom in [*range(1, 200), 999, 9999]:
        assert t_quantile(freedom) == pytest.approx(float(stdtrit(freedom, 0.975)), rel=1e-12)


def test_nothing_and_one_value_have_no_interval() -> None:
    assert mean_with_interval([]) is None
    one = mean_with_interval([3.0])
    assert one is not None
    assert (one.mean, one.low, one.half, one.excludes_zero) == (3.0, None, None, False)


ENDS: Ends = {
    "good but fails": [90.0, 91.0, "failed"],
    "second": [101.0, 102.5, 103.0],
    "first": [100.0, 101.0, 102.5],
    "half way": [99.0, None, 103.5],
    "hopeless": ["failed", "diverged", "failed"],
    "bad and diverges": [95.0, "diverged", 96.0],
    "waits": [None, None, None],
}


def test_settings_rank_as_in_the_report(tiny_run: Make) -> None:
    sweep = sweep_of(tiny_run, ENDS)
    rows = []
    for run in sweep.grid.runs:
        setting, ended = run.label.removesuffix(" · constant(1)"), sweep.ends.get(run.key)
        value = ended.metrics["test/neg_elbo"] if isinstance(ended, Finished) else math.nan
        status = ended.kind if ended is not None else "missing"
        same = {"device": "cpu", "estimator": setting, "estimator_label": setting, "schedule_label": "", "axes": ""}
        rows.append({"setting": setting, **same, "seed": run.seed, "status": status, "test/neg_elbo": value})
    frame = pd.DataFrame(rows)
    expected = comparison.levels(frame, "test/neg_elbo")
    found = rank(sweep)
    names = [level.setting.removesuffix(" · constant(1)") for level in found]
    assert [name for name in names if name not in ("hopeless", "waits")] == list(expected["setting"])[:-2]
    assert names == ["first", "half way", "second", "good but fails", "bad and diverges", "waits", "hopeless"]
    by_name = expected.set_index("setting")
    tried = comparison.by_seed(frame, "test/neg_elbo")
    for name, level in zip(names, found, strict=True):
        row = by_name.loc[name]
        assert (level.n_planned, level.n_bad) == (row["n_planned"], row["n_bad"])
        if level.value is not None:
            assert level.value.n == row["n"]
            assert level.value.mean == pytest.approx(row["mean"], rel=1e-12)
            assert (level.value.low, level.value.high) == pytest.approx((row["low"], row["high"]), rel=1e-12)
        pairs = st.paired_differences(*comparison.paired_values(tried, (name, "cpu"), ("first", "cpu")))
        finite = [float(one) for one in pairs if math.isfinite(one)]
        if level.difference is not None:
            assert (level.difference.n, level.difference.mean) == (
                len(finite),
                pytest.approx(st.mean(finite), rel=1e-9),
            )
            if len(finite) > 1:
                interval = st.t_interval(finite)
                ends = (level.difference.low, level.difference.high)
                assert ends == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12)
                assert level.difference.excludes_zero == interval.excludes_zero


AT_80 = """\
test −ELBO, nats per image (lower is better)
setting                           mean  ± 95 %  seeds  vs best  ± 95 %
first · constant(1)             101.17    3.13    3/3     best
half way · constant(1)          101.25   28.59    2/3    +0.00   12.71  ?
second · constant(1)            102.17    2.59    3/3    +1.00    1.24  ?
good but fails · constant(1)     90.50    6.35    2/3   -10.00    0.00
  1 failed
bad and diverges · constant(1)   95.50    6.35    2/3    -5.75    9.53  ?
  1 diverged
hopeless · constant(1)               –       –    0/3        –
  2 failed, 1 diverged
Settings without a run that has ended: 1.
? These seeds cannot tell it from the best: the interval contains 0.
Settings with failed or diverged runs rank after all others.
"""


def test_the_ranking_at_80_columns(tiny_run: Make) -> None:
    text = shown(sweep_of(tiny_run, ENDS))
    assert text.startswith(AT_80)
    assert text.removeprefix(AT_80) == (
        "12 finished, 4 planned, 3 failed, 2 diverged.\n"
        "failed: ValueError: no (good but fails · constant(1) · seed 2 and 2 more)\n"
        "diverged: loss is nan (hopeless · constant(1) · seed 1 and 1 more)\n"
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_labels_fold_and_numbers_stay_whole(tiny_run: Make, width: int) -> None:
    long = (
        "my_estimator(first_parameter=0.125, second_parameter=17) · lr=0.0003 · hidden=512,256 · an_unbreakable_"
        + "x" * 90
    )
    out = io.StringIO()
    sweep = sweep_of(tiny_run, {long: [1000.25, 1001.5], "short": [1002.125, 1003.0]})
    show_results(Console(file=out, width=width), sweep)
    assert max(map(len, out.getvalue().splitlines())) <= width
    for number in ("1000.88", "7.94", "2/2", "best", "1002.56", "5.56", "+1.69", "2.38"):
        assert number in out.getvalue()
    assert "x" * 90 in "".join(line.split("  ")[0].strip() for line in out.getvalue().splitlines())


def test_one_seed_has_no_interval_and_says_so(tiny_run: Make) -> None:
    text = shown(sweep_of(tiny_run, {"a": [1.0], "b": [2.0]}))
    assert "a · constant(1)  1.00       –    1/1     best\n" in text
    assert "b · constant(1)  2.00       –    1/1    +1.00       –\n" in text
    assert "One seed: no interval (–), and the order may be chance." in text
    assert "cannot tell" not in text


def test_many_settings_are_cut_with_a_line(tiny_run: Make) -> None:
    text = shown(sweep_of(tiny_run, {f"s{n:02}": [float(n), n + 1.0] for n in range(SHOWN + 7)}))
    assert f"s{SHOWN - 1} · " in text
    assert f"s{SHOWN} · " not in text
    assert "… and 7 more: --json and the report list all." in text


def test_a_sweep_of_one_setting_compares_nothing(tiny_run: Make) -> None:
    text = shown(sweep_of(tiny_run, {"only": [1.0, 2.0]}))
    assert "vs best" not in text
    assert "only · constant(1)  1.50    6.35    2/2" in text


def test_without_finished_runs_no_table_is_shown(tiny_run: Make) -> None:
    assert shown(sweep_of(tiny_run, {"a": [None, None]})) == "2 planned.\n"
    assert "ELBO" not in shown(sweep_of(tiny_run, {"a": ["failed"]}))
