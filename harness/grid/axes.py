"""The axes of a grid besides its estimators: schedules, devices and seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.config import DEVICE
from harness.grid import choices
from harness.grid.choices import MAX_RUNS, Placed
from harness.grid.errors import ErrorList
from harness.grid.yaml_nodes import Node
from harness.schedules import KINDS, Schedule


def read_schedules(
    node: Node, errors: ErrorList, where: str = "schedules", *, may_be_one: bool = False
) -> list[Placed]:
    """Return the schedules of a list in a grid, in order, each with its place; or one, if it `may_be_one`."""
    found: list[Placed] = []
    is_one = may_be_one and isinstance(node.value, dict | str)
    for item, path in [(node, where)] if is_one else choices.read_items(node, where, "schedule", errors):
        entries = {"kind": item} if isinstance(item.value, str) else choices.read_mapping(item, path, errors)
        if isinstance(item.value, dict) and "kind" not in entries:
            errors.add(item.position, f"{path}.kind", f"expected one of {', '.join(KINDS)}, got no kind.")
        for kind in choices.swept_values(entries["kind"], f"{path}.kind") if "kind" in entries else []:
            if isinstance(kind.value, str) and kind.value in KINDS:
                found += _schedules(item, path, KINDS[kind.value], kind, errors)
            else:
                errors.expected(kind, f"one of {', '.join(KINDS)}", kind.value, KINDS)
    return found


def _schedules(item: Node, path: str, model: type[Schedule], kind: Placed, errors: ErrorList) -> Iterator[Placed]:
    before = len(errors)
    rest = {key: value for key, value in item.value.items() if key != "kind"} if isinstance(item.value, dict) else {}
    fields = choices.read_fields(Node(rest, item.position, item.keys), path, model, errors)
    if len(errors) > before:
        return
    where = Placed(None, item.position, path)
    for combination in choices.combinations({"kind": [kind], **fields}, where, errors):
        schedule = choices.build(model, combination, where, errors)
        if schedule is not None:
            yield Placed(schedule, item.position, path)


def read_devices(node: Node, errors: ErrorList) -> list[Placed]:
    """Return the devices of a grid, in order, each with its place."""
    found = [choices.placed(item, path) for item, path in choices.read_items(node, "devices", "device", errors)]
    for device in found:
        if not isinstance(device.value, str) or not re.fullmatch(DEVICE, device.value):
            hint = "A GPU is cuda, or mps on a Mac." if device.value == "gpu" else ""
            errors.expected(device, "cpu, cuda, cuda:N or mps", device.value, ["cpu", "cuda", "cuda:0", "mps"], hint)
    return found


def read_seeds(node: Node, errors: ErrorList) -> list[Placed]:
    """Return the seeds of a grid: those of a list, or as many as `count` says, from `first` on."""
    if not isinstance(node.value, dict):
        found = [choices.placed(item, path) for item, path in choices.read_items(node, "seeds", "seed", errors)]
        for seed in found:
            _is_whole(seed, 0, 2**32 - 1, errors)
        return found
    numbers = {"first": Placed(0, node.position, "seeds.first")}
    for key, value in node.value.items():
        if key not in ("first", "count"):
            choices.refuse_key(node, key, f"seeds.{key}", ["first", "count"], errors)
        numbers[key] = choices.placed(value, f"seeds.{key}")
    if "count" not in numbers:
        errors.add(node.position, "seeds.count", "expected the number of seeds, got none.")
        return []
    fine = _is_whole(numbers["count"], 1, MAX_RUNS, errors)
    if not _is_whole(numbers["first"], 0, 2**32 - 1 - MAX_RUNS, errors) or not fine:
        return []
    first, count = numbers["first"].value, numbers["count"].value
    return [Placed(seed, node.position, "seeds") for seed in range(first, first + count)]


def _is_whole(place: Placed, low: int, high: int, errors: ErrorList) -> bool:
    """Return whether a value is a whole number of that range, and report it where it is not."""
    fine = isinstance(place.value, int) and not isinstance(place.value, bool) and low <= place.value <= high
    if not fine:
        errors.expected(place, f"a whole number from {low} to {high}", place.value)
    return fine
