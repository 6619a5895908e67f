"""The table in README.md, made from what the classes declare: `python -m estimators.catalogue` prints it."""

from collections.abc import Mapping

from estimators import REGISTRY, Estimator, parameters

COLUMNS = ("key", "name", "paper", "unbiased", "evaluations", "relaxes", "parameters", "when to use it")


def table(registry: Mapping[str, type[Estimator]] = REGISTRY) -> str:
    """Return a Markdown table, one line for each estimator, in the order of the registry."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(cls) for cls in registry.values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(cls: type[Estimator]) -> tuple[str, ...]:
    arguments = ", ".join(f"{key}={default}" for key, default in parameters(cls).items())
    return (
        f"`{cls.name}`",
        cls.title,
        cls.reference,
        _yes(cls.unbiased),
        _evaluations(cls()),
        _yes(cls.relaxes),
        f"`{arguments}`" if arguments else "–",
        cls.use_when,
    )


def _evaluations(estimator: Estimator) -> str:
    """Return the number of codes evaluated per example and step, as a formula where it depends on something."""
    if "n_samples" in parameters(type(estimator)):
        return "n_samples"
    counts = [estimator.n_cost_evals(n_latents, n_categories) for n_latents, n_categories in ((2, 3), (3, 2))]
    return {(1, 1): "1", (9, 8): "K^L"}.get((counts[0], counts[1]), f"{counts[0]} at L=2, K=3")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    print(table())
