"""The declaration of a task and its measures: what is read, what is refused, and what older stores have."""

import json
import math

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from report_page import Page
from reports_store import Planned, StoreWriter, in_memory, planned
from task_runs import ACCURACY, CURVE, DIGITS, task_records, task_runs

from harness import measures as of_harness
from reports import tables
from reports.contract.errors import ReportError
from reports.contract.measures import VAE_MEASURES, DeclaredMeasure, from_json, to_json
from reports.contract.settings import Setting
from reports.page.context import Context, Options
from reports.report import build_report
from reports.store.frame import UNTYPED, Runs, history_frame, planned_but_missing, tidy
from reports.store.load import load
from reports.store.tasks import changed_measures, stated_task, unreadable_notes

DECLARED = json.dumps([ACCURACY])


def stored(measure):
    """One entry of the tag as the harness stores it."""
    return {"name": measure.name, "title": measure.shown, "unit": measure.unit, "better": measure.better,
            "band": measure.band, "metric": measure.metric, "validation": measure.validation_metric}  # fmt: skip


def test_reports_know_the_measures_of_the_vae_as_the_harness_does():
    text = json.dumps([stored(one) for one in of_harness.VAE_MEASURES])
    assert from_json(text) == VAE_MEASURES


def test_a_declaration_is_read_as_it_is_stored():
    own = of_harness.Measure("accuracy", "accuracy", better="higher", band=0.01)
    (found,) = from_json(json.dumps([stored(own)]))
    assert found == DeclaredMeasure("accuracy", "accuracy", "", "higher", 0.01, "test/accuracy", "val/accuracy")
    assert from_json(to_json((found,))) == (found,)
    (bare,) = from_json(json.dumps([stored(of_harness.LOSS)]))
    assert (bare.title, bare.band, bare.validation) == ("loss", None, "val/loss")


def changed(**more):
    return json.dumps([{**ACCURACY, **more}])


MALFORMED = {
    "no JSON": ("[{", "it is no JSON"),
    "too deep": ("[" * 100_000, "it is no JSON"),
    "no list": ('{"a": 1}', "it is no list of 1 to 50 measures"),
    "empty": ("[]", "it is no list of 1 to 50 measures"),
    "many": (json.dumps([ACCURACY] * 51), "it is no list of 1 to 50 measures"),
    "no object": ("[3]", "a measure is no object"),
    "no name": (changed(name=""), "a measure has no name"),
    "name": (changed(name=3), "'name' of a measure is no text"),
    "better": (changed(better="up"), "'better' of accuracy is neither 'lower' nor 'higher'"),
    "no better": (
        json.dumps([{k: v for k, v in ACCURACY.items() if k != "better"}]),
        "'better' of accuracy is neither",
    ),
    "unhashable better": (changed(better=["higher"]), "'better' of accuracy is neither"),
    "band": (changed(band=0), "'band' of accuracy is no number above 0"),
    "band of text": (changed(band="1"), "'band' of accuracy is no number above 0"),
    "infinite band": (changed(band=math.inf), "'band' of accuracy is no number above 0"),
    "huge band": (changed(band=10**400), "'band' of accuracy is no number above 0"),
    "true band": (changed(band=True), "'band' of accuracy is no number above 0"),
    "core column": (changed(metric="status"), "accuracy does not name its metrics"),
    "no metric": (json.dumps([{"name": "a", "better": "lower"}]), "a does not name its metrics"),
    "twice": (json.dumps([ACCURACY, {**ACCURACY, "name": "b"}]), "two measures have the same metric"),
    "second": (json.dumps([ACCURACY, {**ACCURACY, "metric": "test/b", "better": 1}]), "'better' of accuracy"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_declaration_has_a_reason(case):
    text, reason = MALFORMED[case]
    with pytest.raises(ValueError, match=f"^{reason}"):
        from_json(text)
    found = stated_task({"task": "mine", "harness.measures": text})
    assert found["measures"] == ""
    (note,) = unreadable_notes([found])
    assert note.startswith(f"The measures that 1 run states cannot be read (task mine, tag harness.measures: {reason}")
    assert "\n" not in note


def test_only_a_run_without_the_tags_is_one_of_the_vae():
    assert stated_task({}) == {"task": "categorical_vae", "measures": to_json(VAE_MEASURES)}
    assert stated_task({"task": "mine"}) == {"task": "mine", "measures": "", "unreadable": "there is none"}
    assert stated_task({"task": "mine", "harness.measures": DECLARED})["measures"] == to_json(from_json(DECLARED))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of the VAE as it was before the tags, and one whose runs got the tags of another task."""
    writer = StoreWriter(tmp_path_factory.mktemp("store"))
    writer.sweep("old", planned("rloo", "straight_through"), images=False, epochs=2)
    for name in ("mine", "damaged", "hostile"):
        writer.sweep(name, planned("rloo", "straight_through", seeds=(0, 1)), images=False, epochs=2)
    client = MlflowClient(tracking_uri=writer.uri)
    neg_elbo = {**ACCURACY, "metric": "test/neg_elbo", "validation": "val/loss"}
    script = "<script>alert(1)</script>\x1b[2J"
    tags = {
        "mine": ("mine", json.dumps([neg_elbo])),
        "damaged": ("damaged", '[{"name": "accuracy", "better": "best"}]'),
        "hostile": (script, json.dumps([{**neg_elbo, "title": script, "unit": script, "name": script}])),
    }
    for name, (task, declared) in tags.items():
        for run in children(client, name):
            client.set_tag(run, "task", task)
            client.set_tag(run, "harness.measures", declared)
    return writer.uri


def children(client, name):
    experiment = client.get_experiment_by_name(name).experiment_id
    return [run.info.run_id for run in client.search_runs([experiment], "tags.`harness.kind` = 'run'")]


def test_an_old_store_has_one_task_and_its_measures(store):
    runs = load("old", store)
    assert runs.tasks == ["categorical_vae"]
    assert runs.measures == {"categorical_vae": VAE_MEASURES}
    assert set(runs.runs["task"]) == {"categorical_vae"}
    assert Context(runs).primary.better == "lower"
    assert not any("measures" in note for note in runs.notes)


def test_a_store_with_the_tags_is_ranked_by_them(store):
    runs = load("mine", store)
    assert runs.tasks == ["mine"]
    context = Context(runs)
    assert [(one.name, one.better, one.band) for one in context.metrics] == [("test/neg_elbo", "higher", 0.01)]
    assert list(context.levels(context.primary)["estimator"]) == ["rloo", "straight_through"]  # higher is better here


def test_a_malformed_declaration_is_a_note_and_no_metric_is_guessed(store, tmp_path, undrawn):
    runs = load("damaged", store)
    (note,) = [note for note in runs.notes if "measures" in note]
    assert note.startswith("The measures that 4 runs state cannot be read (task damaged")
    assert Context(runs).metrics == []
    page = Page(build_report(runs, tmp_path).read_text())
    assert "'better' of accuracy is neither 'lower' nor 'higher'" in page.text
    assert "No run finished" not in page.text
    assert "None of the metrics that the task is compared by is stored" in page.text


def test_the_loss_ranks_where_no_declaration_can_be_read():
    records, _ = task_records(DIGITS, planned("rloo", "straight_through"))
    frame = tidy([{**record, "measures": ""} for record in records])
    (metric,) = Context(_runs(frame)).metrics
    assert (metric.name, metric.better, metric.band, metric.unit) == ("test/loss", "lower", None, "")


def _runs(frame):
    return Runs("x", frame, history_frame(frame, {}))


def test_hostile_texts_of_a_declaration_are_texts(store, tmp_path, undrawn):
    runs = load("hostile", store)
    page = Page(build_report(runs, tmp_path).read_text())
    assert page.tags.count("script") == 1
    assert "<script>alert(1)</script>\\x1b[2J" in page.text
    assert "\x1b" not in page.text


def test_a_run_of_which_only_the_plan_is_known_has_the_task_of_the_others():
    records, _ = task_records(DIGITS, [*planned("rloo"), *planned("rloo", seeds=(1,), status="missing")])
    frame = tidy(records)
    assert set(frame["task"]) == {"mnist_sum"}
    assert set(frame["task_label"]) == {"mnist_sum"}
    entry = {"run_key": "k", "estimator": "rloo", "seed": 1, "task": "polynomial"}
    assert set(tidy(planned_but_missing([entry], set()))["task"]) == {"polynomial"}
    setting = Setting("rloo", None, (("task", "polynomial(p=2)"),)).stored()
    alone = tidy(planned_but_missing([{"run_key": "k", "estimator": "rloo", "setting": setting}], set()))
    assert alone[["task", "task_label", "setting"]].iloc[0].tolist() == ["polynomial", "polynomial(p=2)", "rloo"]


def test_the_newest_run_says_what_counts_if_a_task_was_edited():
    records, _ = task_records(DIGITS, planned("rloo", seeds=(0, 1)))
    records[1]["measures"] = json.dumps([{**ACCURACY, "better": "lower"}])
    frame = tidy(records)
    assert _runs(frame).measures["mnist_sum"][0].better == "lower"
    (note,) = changed_measures(frame)
    assert note.startswith("Runs of the task mnist_sum declare different measures")
    assert changed_measures(tidy(records[:1])) == ()


def test_tasks_of_several_experiments_are_told_apart_by_their_parameters():
    one, _ = task_records(CURVE, planned("rloo"))
    other, _ = task_records(CURVE, planned("rloo"))
    other = [{**record, "run_key": "other", "task.p": 1.5} for record in other]
    frame = tidy([*one, *other])
    assert sorted(frame["task_label"]) == ["polynomial(p=1.5)", "polynomial(p=2)"]
    assert set(frame["setting"]) == {"rloo"}


def test_a_setting_is_called_the_same_on_every_task():
    runs = task_runs({DIGITS: planned("gumbel_softmax"), CURVE: planned("gumbel_softmax")})
    assert set(runs.runs["setting"]) == {"gumbel_softmax · constant(1)"}
    assert runs.tasks == ["mnist_sum", "polynomial"]
    assert {label: found[0].better for label, found in runs.measures.items()} == {
        "mnist_sum": "higher", "polynomial": "lower",
    }  # fmt: skip


def test_a_table_of_a_notebook_is_about_one_task():
    runs = task_runs({DIGITS: planned("rloo", seeds=(0, 1)), CURVE: planned("rloo", seeds=(0, 1))})
    with pytest.raises(ReportError, match=r"^task: expected runs of one task, got mnist_sum, polynomial\."):
        tables.quality(runs.runs)
    assert "higher is better" in tables.quality(runs.of_task("mnist_sum").runs).caption
    with pytest.raises(ReportError, match=r"^task: expected one of mnist_sum, polynomial; got 'x'"):
        runs.of_task("x")


def test_runs_of_one_task_have_its_columns_only():
    runs = task_runs({DIGITS: planned("rloo"), CURVE: planned("rloo")}).of_task("mnist_sum")
    assert "test/accuracy" in runs.runs
    assert "test/distance" not in runs.runs
    assert "val/distance" not in runs.history
    assert set(runs.history["run_key"]) == set(runs.runs["run_key"])
    assert "task.n_digits" in runs.runs
    assert "task.p" not in runs.runs


def test_the_hash_of_a_task_stays_a_text():
    assert "task.source" in UNTYPED


def test_the_frame_of_the_vae_says_what_it_is():
    frame = in_memory([Planned("rloo", "none", 0)]).runs
    assert frame["measures"].tolist() == [to_json(VAE_MEASURES)]
    assert Context(in_memory(planned("rloo")), Options()).wording.is_vae
    assert pd.isna(frame["schedule"].iloc[0])
