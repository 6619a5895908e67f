"""Every term of the report, once, for the last section; each column's heading links to its term.

Words between backticks are code, and those in braces depend on the task: its nouns, its measures and their direction.
"""

from __future__ import annotations

from reports.page.context import Context
from reports.page.numbers import band
from reports.page.wording import directions

TERMS: tuple[tuple[str, str, str], ...] = (
    ("setting", "Setting", "An estimator with its parameters, a temperature schedule and other swept fields. Runs of "
        "one setting and device differ by their seed only."),
    ("neg-elbo", "Negative ELBO", "`test/neg_elbo`: reconstruction cost with one-hot samples plus the analytic KL "
        "divergence to the uniform prior, mean over test images, nats per example. The estimators are compared by it."),
    ("neg-bound", "Negative bound", "`test/neg_bound`: the importance-weighted bound with k = {k} one-hot samples "
        "(Burda et al. 2016, eq. 8); closer to −log p(x), and lower, the larger k."),
    ("gap", "Relaxed loss, soft/hard gap", "`test/relaxed_loss` is the same cost with the codes of training, which a "
        "relaxation makes soft. The gap is the negative ELBO minus this: how far the training objective flatters the "
        "model. `val/soft_hard_gap` is the same on the validation images after an epoch."),
    ("pair", "Pairs", "The seed decides initialisation, data order and evaluation noise for every estimator alike. "
        "Differences are taken at the same seed, device, schedule and other axes; an estimator without a temperature "
        "is paired with every schedule. Where there is no such pair because an estimator has settings for itself, such "
        "as a learning rate, these may differ. {Negative}."),
    ("n", "n", "Runs that finished, of those planned."),
    ("mean", "Mean", "Of the finished runs: it cannot hold {an_infinity}, so read it with n."),
    ("interval", "95 % interval", "Student’s t, on the values or on the paired differences. For normal and "
        "heavy-tailed differences it covers 95 % at every number of seeds, for strongly skewed ones 82 to 86 %; a "
        "percentile bootstrap of a mean covers 75 % at 3 seeds and 90 % at 10. Intervals are not corrected for the "
        "number of comparisons, and the best of several settings looks better than it is."),
    ("median", "Median", "Failed and diverged runs count as {worst}, so it is {worst} once half of the runs have no "
        "number. "
        "Its interval, in the CSV and on hovering, is that of the sign test, from six runs on."),
    ("iqm", "IQM", "Interquartile mean: the mean of the middle half of the values, with fractional weights at its "
        "ends; failed and diverged runs count as {worst} (Agarwal et al. 2021). Its interval, in the CSV and on "
        "hovering, is Student’s t of a trimmed mean (Tukey and McLaughlin 1963)."),
    ("p-better", "P(better)", "Probability of improvement: the share of pairs in which the setting is {lower}, ties "
        "half, a failure a loss; its interval is that of a binomial share."),
    ("holm", "Holm p", "Two-sided exact Wilcoxon signed-rank test of the paired differences, Holm’s correction over "
        "the table."),
    ("floor", "Power floor", "The smallest p that the test can give at n pairs, 2/2ⁿ: .25 at 3, .0625 at 5, .031 at "
        "6. Where it is above .05 the table says so instead of a p that could not have been small."),
    ("equivalence", "Against the band", "The difference against a band of {band} that nobody would care about: "
        "equivalent where the 90 % interval lies within it (two one-sided tests at 5 %, Schuirmann 1987), better or "
        "worse where the 95 % interval excludes zero, else undecided."),
    ("failures", "Failed, diverged", "Worst in every rank, median, IQM, P(better), test, profile and target; two at "
        "one seed tie. Skipped, interrupted, running and missing runs have not been tried to the end: they are in no "
        "mean and no pair, and are listed."),
    ("profile", "Performance profile", "For every value the share of an estimator’s runs, over its schedules and "
        "other axes, that end at it or {primary_below} (Dolan and Moré 2002; Agarwal et al. 2021)."),
    ("wins", "Wins", "The share of seeds at which the row’s setting is {primary_lower} than the column’s, ties half."),
    ("target", "Time to target", "The first epoch at which a run’s `{curve}` is at the target or {curve_below}. Runs "
        "that never are count as not reached, failed and diverged ones too; one that was cut short leaves the count "
        "where it ended (Kaplan and Meier 1958)."),
    ("evals", "Evaluations", "{Evaluations} per {image}: those of an update (`cost/n_cost_evals`) times updates "
        "times batch, divided by the {images} of an epoch where a budget is counted."),
    ("step-time", "Step", "One update of one batch, warm-up excluded and the device synchronised; median over the "
        "run, then over runs. `shared`: other runs were under way on the machine."),
    ("memory", "Peak memory", "Resident memory of the process on a CPU, allocated memory on a GPU."),
    ("pareto", "Pareto front", "The settings that no other beats both in quality and in cost."),
    ("equal-cost", "Equal cost", "`{curve}` at the last epoch that the smallest budget of all settings pays for, in "
        "updates, evaluations or seconds of training."),
    ("perplexity", "Code perplexity", "exp of the entropy of the aggregate posterior of a variable (the mean of "
        "{law} over {images}), mean over the variables: how many of its classes a variable uses."),
    ("dead-classes", "Dead classes", "Classes of all variables to which the aggregate posterior gives less than "
        "0.01/K, a hundredth of the uniform share: next to no {image} uses them."),
    ("entropy", "Entropy of q", "Mean over {images} of the entropy of {law}, summed over variables{in_nats}: how "
        "undecided a code is."),
    ("kl", "KL", "Mean over images of the KL divergence of q(z|x) to the uniform distribution, in nats: how much a "
        "code says of an image. `test/kl` is the sum over the variables; KL per variable is its parts."),
    ("bias", "Relative bias", "Length of (mean gradient − true gradient) ÷ length of the true one, the Monte Carlo "
        "noise floor subtracted (docs/diagnostics.md)."),
    ("code", "Code", "The commit and whether files were changed; the numbers of one report should come from one."),
)  # fmt: skip

SLUGS = frozenset(slug for slug, _, _ in TERMS)
_OF_VAE = frozenset(("neg-elbo", "neg-bound", "gap", "kl"))


def terms(context: Context, bound_samples: str, curve: str) -> list[tuple[str, str, str]]:
    """Return the terms that a page about these runs uses, with their words filled in."""
    wording, primary = context.wording, [context.primary] if context.primary else []
    many, first = directions(context.metrics), directions(primary)
    words = {
        **many,
        **wording.texts,
        "an_infinity": {"∞": "an ∞", "−∞": "a −∞"}.get(many["worst"], "an infinity"),
        "primary_lower": first["lower"],
        "primary_below": first["below"],
        "curve_below": directions([context.curve] if context.curve else [])["below"],
        "band": _bands(context),
        "law": "q(z|x)" if wording.is_vae else "the law of the codes of an example",
        "in_nats": ", in nats" if wording.is_vae else "",
        "k": bound_samples,
        "curve": curve,
    }
    shown = [term for term in TERMS if wording.is_vae or term[0] not in _OF_VAE]
    found = [
        (slug, term if wording.is_vae else term.removesuffix(" of q"), meaning.format(**words))
        for slug, term, meaning in shown
    ]
    return found if wording.is_vae else [found[0], ("measure", "Measures", _measures(context)), *found[1:]]


def _bands(context: Context) -> str:
    """Return the bands of the metrics: ``±0.50 nats``."""
    found = [
        f"±{band(one.band)} {one.unit}".strip() for one in context.metrics if one.compared and one.band is not None
    ]
    return " or ".join(dict.fromkeys(found)) or "differences"


def _measures(context: Context) -> str:
    """Return what the task is compared by, in words."""
    shown = [f"`{one.name}`: {one.title}{f', {one.unit}' if one.unit else ''}, {one.better} is better"
             for one in context.metrics]  # fmt: skip
    more = "" if any(one.band is not None for one in context.metrics) else (
        " No difference is declared too small to matter, so nothing is called equivalent; --band gives one."
    )  # fmt: skip
    return f"What the task declares, with one-hot codes on test examples. {'; '.join(shown)}. The first ranks.{more}"
