"""Gradient quality on paper: the report's section, the page of `harness gradients`, and the command."""

import dataclasses
import shlex

import numpy as np
import pandas as pd
import pytest
from report_page import Page
from reports_store import in_memory, planned, with_diagnostics

from harness.cli import cli
from reports.page import gradients
from reports.page.gradients import Section
from reports.page.palette import styles
from reports.page.table import Column
from reports.page.wording import VAE
from reports.report import build_report
from reports.sections import gradient_history


@pytest.fixture(scope="module")
def runs():
    return with_diagnostics()


def test_tables_show_first_and_last_measurements_as_means_over_seeds(runs):
    sections = gradient_history.sections(runs)
    assert [section.title for section in sections] == [
        "gumbel_softmax · constant(1), epoch 1",
        "gumbel_softmax · constant(1), epoch 4",
        "rloo, epoch 1",
        "rloo, epoch 4",
    ]
    *_, last = gradient_history.tables(sections, VAE)
    assert last.caption == "At the parameters of rloo, over 3 seeds: epoch 4"
    columns = [column.title for column in last.columns]
    rows = {row[0].text: dict(zip(columns, [cell.text for cell in row], strict=True)) for row in last.rows}
    assert list(rows) == ["rloo (its own)", "reinmax(tau=1, note=2)"]  # in the order of the basket, by its labels
    reinmax = rows["reinmax(tau=1, note=2)"]
    assert (reinmax["Rel. bias"], reinmax["Variance"], reinmax["Evals"]) == ("4.600", "4.6", "4")
    assert (reinmax["Enc. bias"], reinmax["95 % interval"]) == ("4.600", "–")


def test_intervals_of_seeds_are_joined_and_the_smallest_p_value_is_corrected(runs):
    name, history = "gradient/own", runs.history.copy()
    at = (history["estimator"] == "rloo") & (history["epoch"] == 4)
    for metric, values in (("p_value", [0.2, 0.01, 0.9]), ("relative_bias_low", [0.1, 0.0, 0.2]),
                           ("relative_bias_high", [0.3, 0.2, 0.4])):  # fmt: skip
        history.loc[at, f"{name}/{metric}"] = values
    row = gradient_history.sections(dataclasses.replace(runs, history=history))[-1].frame.iloc[0]
    assert row["p_value"] == pytest.approx(0.03)
    assert (row["relative_bias_low"], row["relative_bias_high"]) == (0.0, 0.4)


def test_settings_of_other_lengths_and_devices_have_their_own_first_and_last_epoch(runs):
    history = runs.history.copy()
    short = (history["estimator"] == "rloo") & (history["seed"] == 2)
    history.loc[short, "device"] = "cuda"
    history = history[~(short & (history["epoch"] > 1))]
    titles = [section.title for section in gradient_history.sections(dataclasses.replace(runs, history=history))]
    assert titles[-3:] == ["rloo on cpu, epoch 1", "rloo on cpu, epoch 4", "rloo on cuda, epoch 1"]


def test_a_bias_that_was_not_found_is_drawn_as_zero_with_its_number(runs):
    name = "gradient/own/relative_bias"
    history = runs.history.assign(**{f"{name}_low": 0.0})
    (title, panels), *_ = gradient_history.curves(history, styles([("rloo", "rloo"), ("gumbel_softmax",) * 2]))
    assert title == "Relative bias on the logits"
    assert all("4.1" not in panel.alt for panel in panels)
    found = gradient_history.sections(dataclasses.replace(runs, history=history))[-1].frame
    assert found["relative_bias"][0] == pytest.approx(4.1)


@pytest.mark.usefixtures("undrawn")
def test_tables_are_written_next_to_the_report(runs, tmp_path):
    build_report(runs, tmp_path)
    stored = pd.read_csv(tmp_path / "tables" / "gradients.csv")
    assert list(stored.columns[:2]) == ["parameters_of", "estimator"]
    assert len(stored) == 8
    assert "reinmax(tau=1, note=2)" in (tmp_path / "tables" / "gradients.md").read_text()
    assert r"\toprule" in (tmp_path / "tables" / "gradients.tex").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_report_has_a_section_on_gradients_only_where_there_are_diagnostics(runs, tmp_path):
    with_section = Page(build_report(runs, tmp_path / "with").read_text())
    assert "At the parameters of rloo, over 3 seeds: epoch 4" in with_section.text
    assert "The true gradient is exact" in with_section.text
    assert "Signal-to-noise on the logits" in with_section.text
    without = Page(build_report(in_memory(planned("rloo", "gumbel_softmax")), tmp_path / "without").read_text())
    assert "Not measured: a diagnostics section in the grid asks for it" in without.text


def test_the_report_says_when_the_reference_is_an_average(runs):
    history = runs.history.assign(**{"gradient/truth_error": 0.0213})
    assert "standard error is up to 0.021 of its norm" in gradient_history.truth(history)
    assert gradient_history.truth(in_memory(planned("rloo", "gumbel_softmax")).history) == ""


def test_a_value_that_a_run_does_not_have_is_a_dash_and_not_a_zero(runs):
    history = runs.history.copy()
    history["gradient/own/cosine"] = np.nan
    table = gradient_history.tables(gradient_history.sections(dataclasses.replace(runs, history=history)), VAE)[-1]
    at = [column.title for column in table.columns].index("Cosine")
    assert table.rows[0][at].text == "–"


def test_a_bias_beyond_the_axis_is_a_number_at_its_end():
    drawn = gradients.figure(frame())
    bias = drawn.axes[0]
    assert bias.get_xlim()[1] == gradients.LAST_BIAS
    assert [text.get_text() for text in bias.texts] == ["12.3 →"]


def frame():
    return pd.DataFrame(
        {
            "estimator": ["exact", "reinforce", "wild <b>", "arsm"],
            "relative_bias": [0.0, 12.345, np.nan, np.nan],
            "relative_bias_low": [0.0, 0.0, np.nan, np.nan],
            "relative_bias_high": [0.0, 20.0, np.nan, np.nan],
            "p_value": [1.0, 0.0001, 0.3, np.nan],
            "cosine": [1.0, 0.5, np.nan, np.nan],
            "cosine_low": [1.0, 0.4, np.nan, np.nan],
            "cosine_high": [1.0, 0.6, np.nan, np.nan],
            "variance": [0.0, 123456.0, 2.5e-5, np.nan],
            "mse": [0.0, 1234.0, 1.0, np.nan],
            "snr": [np.inf, 0.5, np.nan, np.nan],
            "relative_error_100": [0.0, 1234.0, 1.0, np.nan],
            "evaluations": [9, 1, 1, np.nan],
            "seconds": [0.001, 0.0001, 1.0, np.nan],
            "reason": ["", "", "", "expected more"],
        }
    )


def test_the_table_rounds_and_marks_what_is_undefined():
    table = gradients.table(frame(), "caption")
    assert all(isinstance(column, Column) for column in table.columns)
    texts = [[cell.text for cell in row] for row in table.rows]
    assert texts[0] == ["exact", "0.000", "[0.000, 0.000]", "1", "1.000", "0", "0", "∞", "9", "1"]
    assert texts[1] == ["reinforce", "12.3", "[0.000, 20]", "< .001", "0.500", "1.23e+05", "1,230", "0.5", "1", "0.1"]
    assert texts[2][1:6] == ["–", "–", ".300", "–", "2.50e-05"]
    assert len(texts) == 3


def test_the_page_has_tables_figures_and_reasons_and_is_written_whole(tmp_path):
    section = Section("toy-1", "exact", frame(), "A toy & its cost.")
    path = gradients.write([section], tmp_path, title="mine", command="harness gradients", notes={"Seed": "0"})
    page = Page(path.read_text())
    assert "A toy & its cost." in page.text
    assert "arsm : expected more." in page.text
    assert "wild <b>" in page.text
    assert "svg" in page.tags
    stored = pd.read_csv(tmp_path / "gradients.csv")
    assert list(stored["problem"]) == ["toy-1"] * 4
    assert (tmp_path / "gradients.md").read_text().count("| reinforce |") == 1
    assert (tmp_path / "figures" / "toy-1.svg").stat().st_size > 1000
    gradients.write([section], tmp_path, title="mine", command="harness gradients", notes={"Seed": "0"})
    assert path.read_text() == (tmp_path / "gradients.html").read_text()


def test_the_command_judges_a_plugin_on_every_toy(tmp_path, monkeypatch):
    from click.testing import CliRunner

    plugin = tmp_path / "mine.py"
    plugin.write_text(
        """
import torch
from estimators import Pathwise
class Half(Pathwise):
    name = "half"
    relaxes = True
    def __init__(self, *, tau=1.0):
        super().__init__()
        self.tau = tau
    def sample(self, logits_BLK):
        return (logits_BLK / self.tau).softmax(-1)[None]
"""
    )
    grid = tmp_path / "judge.yaml"
    grid.write_text("estimators: [half, rloo]\nseeds: [0, 1]\nschedules: [{kind: constant, tau: [0.5, 1]}]\n")
    monkeypatch.setenv("COLUMNS", "80")
    arguments = f"gradients --grid {grid} --plugin {plugin} --resamples 64 --out {tmp_path / 'out'}"
    done = CliRunner().invoke(cli, shlex.split(arguments))
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines()[:-1])) <= 80
    assert "half · tau=0.5" in done.output
    stored = pd.read_csv(tmp_path / "out" / "gradients" / "judge" / "gradients.csv")
    assert set(stored["estimator"]) == {"half · tau=0.5", "half · tau=1", "rloo"}
    assert stored["problem"].nunique() == 7
    softened = stored[(stored["estimator"] == "half · tau=1") & (stored["problem"] == "quadratic")].iloc[0]
    assert softened["p_value"] < 0.001
    assert softened["variance"] == 0
