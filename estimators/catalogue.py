"""The tables in README.md, of the classes and of their other names: `python -m estimators.catalogue` prints them."""

from collections.abc import Callable, Mapping

from estimators import REGISTRY, Estimator, aliases, parameters
from estimators.declarations import example
from estimators.reference_problem import accepts, shapes

FORMULAS: Mapping[str, Callable[[int, int, int], int]] = {
    "1": lambda n, L, K: 1,
    "n_samples": lambda n, L, K: n,
    "n_samples + 1": lambda n, L, K: n + 1,
    "2 n_samples": lambda n, L, K: 2 * n,
    "3 n_samples": lambda n, L, K: 3 * n,
    "n_samples (K(K−1)/2 + 1)": lambda n, L, K: n * (K * (K - 1) // 2 + 1),
    "n_samples (L(K−1) + 1)": lambda n, L, K: n * (L * (K - 1) + 1),
    "n_samples (L min(n_summed, K−1) + 1)": lambda n, L, K: n * (L * min(3, K - 1) + 1),  # n_summed is 3 by default
    "K^L": lambda n, L, K: K**L,
}
MANY_CLASSES = (3, 9)
"""A further shape at which formulas are told apart."""
COLUMNS = ("key", "name", "paper", "unbiased", "evaluations", "relaxes", "needs", "parameters", "when to use it")


def table(registry: Mapping[str, type[Estimator]] = REGISTRY) -> str:
    """Return a Markdown table, one line for each estimator, in the order of the registry."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(cls) for cls in registry.values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(cls: type[Estimator]) -> tuple[str, ...]:
    arguments = ", ".join(
        key if key in cls.examples else f"{key}={default}" for key, default in parameters(cls).items()
    )
    return (
        f"`{cls.name}`",
        cls.title,
        cls.reference,
        _yes(cls.unbiased),
        evaluations(cls),
        _yes(cls.relaxes),
        needs(cls),
        f"`{arguments}`" if arguments else "–",
        cls.use_when,
    )


def needs(cls: type[Estimator]) -> str:
    """Return what an estimator asks of a cost: its value, its slope at one-hot codes, or that at soft codes too."""
    if cls.black_box:
        return "value"
    return "slope, soft codes" if cls.relaxes or cls.evaluates_soft else "slope"


def evaluations(cls: type[Estimator]) -> str:
    """Return the number of codes on which the cost is evaluated, per example and step, as a formula of n_samples, L, K.

    It is the first of FORMULAS that agrees with `n_cost_evals` at every tried shape and number of samples. For a user's
    estimator with another formula it is the number at the example shape.
    """
    counts = range(cls.min_samples, cls.min_samples + 3) if "n_samples" in parameters(cls) else ()
    built = [example(cls, n_samples=n) for n in counts] or [example(cls)]
    tried = [(each, *shape) for each in built for shape in (*shapes(each), MANY_CLASSES) if accepts(each, *shape)]
    for text, formula in FORMULAS.items():
        if all(each.n_cost_evals(L, K) == formula(each.n_samples, L, K) for each, L, K in tried):
            return text
    each, n_latents, n_categories = tried[0]
    return f"{each.n_cost_evals(n_latents, n_categories)} at L={n_latents}, K={n_categories}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    print(table(), aliases.table(), sep="\n\n")
