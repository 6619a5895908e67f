"""The experiments of a store: which are asked for, and all their runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reports.contract.errors import ReportError
from reports.contract.text import NAME_LENGTH, visible

_PAGE = 1000


def find_experiments(client: Any, names: Sequence[str] | None) -> dict[str, str]:
    """Return the names of the experiments by their ids; None means the only one there is.

    Raises ReportError if one is not there, if no name is given, or if None could mean several.
    """
    names = [_only_name(client)] if names is None else list(dict.fromkeys(names))
    if not names:
        raise ReportError("experiment: expected the name of at least one, got none.")
    return {_experiment_id(client, name): name for name in names}


def all_runs(client: Any, experiment_id: str) -> Iterable[Any]:
    """Yield every run of an experiment."""
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _experiment_id(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        listed = _listed(_names(client))
        raise ReportError(f"experiment: expected the name of a stored experiment, got '{name}'. There is: {listed}.")
    return str(found.experiment_id)


def _only_name(client: Any) -> str:
    names = _names(client)
    if not names:
        raise ReportError("experiment: expected one in the store, got none. Run a grid first.")
    if len(names) != 1:
        raise ReportError(f"experiment: expected a name, as there is not just one. There is: {_listed(names)}.")
    return names[0]


def _names(client: Any) -> list[str]:
    return sorted(found.name for found in client.search_experiments() if found.name != "Default")


def _listed(names: list[str]) -> str:
    """Return the names as an error lists them."""
    if not names:
        return "none yet; run a grid first"
    return ", ".join(visible(name, NAME_LENGTH) for name in names[:20]) + (", …" if len(names) > 20 else "")
