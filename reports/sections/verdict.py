"""What the runs say, how sure that is, and what it rests on."""

from __future__ import annotations

from reports import comparison
from reports.comparison import Metric
from reports.page import interval_plots, stored_provenance
from reports.page.blocks import Block, Counts, Facts, Finding, Findings, How, Pictures, Section, Words
from reports.page.context import Context
from reports.sections import findings
from reports.store.frame import Runs

HOW = (
    "{metric} of each setting less that of the baseline with the same schedule, other axes and seed (an estimator "
    "without a temperature is paired with each schedule): a mark per seed, the bar is the mean with its 95 % interval "
    "by Student’s t. {side} of zero is better than the baseline. The sentences above compare the best settings, "
    "whatever their schedules, where they say so."
)
HOW_OWN = " Settings that estimators have for themselves may differ within a pair; the remark above lists them."
BY_DEFAULT = " (chosen by default: straight_through if there is one, else the first by name)"


def section(context: Context) -> Section:
    """Show a sentence per metric, the counts, the warnings, and how to do it again."""
    blocks: list[Block] = [*_findings(context)]
    if differing := findings.differing(context.frame):
        blocks.append(Words(differing, "remark"))
    power = next((findings.power_floor(each) for each in map(context.differences, context.metrics) if len(each)), "")
    blocks += [Words(power, "remark")] if power else []
    if context.primary is not None and (needed := _needed(context, context.primary)):
        blocks.append(Words(needed, "remark"))
    blocks += [Words(text, "warn") for text in (*findings.warnings(context.frame), *context.runs.notes)]
    blocks += [Counts(findings.counts(context.frame)), *_picture(context), _facts(context)]
    return Section("verdict", "Verdict", blocks)


def _findings(context: Context) -> list[Block]:
    found = []
    for metric in context.metrics:
        if metric.compared:
            sentence = findings.sentence(
                context.compared, metric, context.levels(metric), context.differences(metric), context.baseline
            )
            found.append(Finding(metric.title, metric.name, *sentence))
    if not found:
        text = f"{context.without_numbers}, so there is nothing to compare. What happened to each run is below."
        return [Words(text, "empty")]
    grouped = context.options.group_by
    note = f"Compared by {grouped}: each value is the mean over everything else at one seed, so n counts seeds."
    if grouped and context.left_out:
        note += f" Left out, because they are not in every group: {', '.join(context.left_out)}."
    return [*([Words(note, "remark")] if grouped else []), Findings(found)]


def _needed(context: Context, metric: Metric) -> str:
    tried = comparison.by_seed(context.compared, metric)
    return findings.seeds_needed(context.levels(metric), tried, metric)


def _picture(context: Context) -> list[Block]:
    """Show the one figure to look at: paired differences, or the levels if nothing can be paired."""
    if context.primary is None:
        return []
    panel = interval_plots.difference_plot_of(context, context.primary) or interval_plots.level_plot(
        context.compared, context.levels(context.primary), context.primary, context.styles
    )
    side = "Left" if context.primary.sign > 0 else "Right"
    how = HOW.format(metric=context.primary.name, side=side) + HOW_OWN * bool(comparison.own_settings(context.frame))
    return [Pictures("verdict", [panel]), How(how)] if panel else []


def _facts(context: Context) -> Facts:
    facts = facts_of(context.runs)
    stated = context.options.baseline is not None
    facts.append(("Baseline", context.baseline.label + ("" if stated else BY_DEFAULT)))
    if context.wording.is_vae:
        facts.append(("k of the bound", comparison.bound_samples(context.frame)))
    else:
        facts.append(("Task", ", ".join(sorted(set(context.frame["task_label"])))))
    return Facts(facts, command=stored_provenance.command(context.runs))


def facts_of(runs: Runs) -> list[tuple[str, str]]:
    """Return code, machine, packages and date of some runs."""
    stored = runs.sweeps[-1].provenance if runs.sweeps else {}
    facts = [("Code", stored_provenance.code(stored)), ("Hardware", stored_provenance.summary(stored))]
    if packages := stored_provenance.packages(stored):
        facts.append(("Packages", packages))
    return [*facts, ("Newest run", stored_provenance.newest_end(runs.runs))]
