"""The checks of `harness run` before it starts: which runs are selected, and what its options mean for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.commands.shared import Refused
from harness.errors import did_you_mean

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.options import SavingEvery
    from harness.plugins.registry import Registry


def select(runs: Sequence["RunConfig"], only: Sequence[str]) -> Sequence["RunConfig"]:
    """Return the runs that match every KEY=VALUE. Raises Refused if none does."""
    known = {name for run in runs for name in settings_as_text(run)} if only else set()
    for condition in only:
        key, separator, value = condition.partition("=")
        if not separator:
            raise Refused(f"--only: expected KEY=VALUE, got {condition!r}.")
        if key not in known:
            hint = did_you_mean(key, known)
            raise Refused(f"--only: expected one of {', '.join(sorted(known))}, got {key!r}. {hint}".rstrip())
        values = sorted({settings_as_text(run).get(key, "–") for run in runs})
        matching = [run for run in runs if settings_as_text(run).get(key) == value]
        if not matching and (key, value) == ("schedule", "none"):  # those without a temperature have no label
            matching = [run for run in runs if run.setting.schedule is None]
        if not matching and key == "task":  # its name, or its label with the parameters that differ
            matching = [run for run in runs if run.task_name == value]
        runs = matching
        if not runs:
            raise Refused(f"--only: expected {key} to be one of {', '.join(values)}, got {value!r}.")
    return runs


def settings_as_text(run: "RunConfig") -> dict[str, str]:
    """Return the settings of a run as text, by the names that `--only` accepts."""
    named = {"estimator": run.estimator.name, "label": run.label, "task": run.task_label}
    if run.setting.schedule is not None:
        named["schedule"] = run.setting.schedule
    return {**{name: str(value) for name, value in run.flat().items()}, **named}


def check_data(runs: Sequence["RunConfig"], registry: "Registry") -> None:
    """Load each data set once for each task, to refuse what is missing, damaged or unsuitable before the first run.

    Raises DataError or Refused. Own images of the VAE were read with the grid.
    """
    from harness.datasets.own import is_own
    from harness.plugins.registry import datasets_of
    from harness.training.data import load_splits, new_task

    distinct = {(run.task, run.data): run for run in runs if _has_data(run)}
    for (task, data), run in distinct.items():
        if task is not None or not is_own(data.name):
            try:
                load_splits(run, new_task(run, registry), datasets_of(registry))
            except ValueError as error:
                raise Refused(str(error)) from error


def _has_data(run: "RunConfig") -> bool:
    """Return whether the data of a run are images, or those of a plug-in's task."""
    return "data" in run.sections or (run.task is not None and run.task.source is not None)


def saving_notes(saving: "SavingEvery", runs: Sequence["RunConfig"]) -> list[str]:
    """Return a note about a checkpoint interval that no run reaches."""
    longest = max(run.n_epochs for run in runs)
    if saving.epochs is None or saving.epochs <= longest:
        return []
    return [f"--checkpoint-every {saving.epochs}epochs saves nothing: the longest run has {longest} epochs"]


def check_memory_limit(limit: float | None) -> None:
    """Refuse a limit below what a worker needs before it trains, since it would stop every run."""
    import psutil

    loaded = psutil.Process().memory_info().rss  # this process has imported as much as a worker
    if limit is not None and limit < loaded / 2:
        raise Refused(
            f"--memory-limit: expected more than a worker needs before it trains, about {loaded / 1e6:,.0f} MB, "
            f"got {limit / 1e6:,.0f} MB."
        )
