"""A record in MLflow's terms: metrics, params, tags, files and their checksums, in calls of the right size."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from mlflow.entities import Metric, Param, RunTag

from harness.events import TERMINAL, EpochDone, Event, Finished, Latents, Picture, Record, Started, Weights
from harness.storage.attempt import Attempt
from reports.contract import stored_run as names
from reports.contract.text import visible

Entity = Metric | Param | RunTag
MAX_PER_CALL: dict[type, int] = {Metric: 1000, Param: 100, RunTag: 100}
MAX_ENTITIES_PER_CALL = 1000
MLFLOW_STATUS = {names.FINISHED: "FINISHED"}
MLFLOW_STATUS |= dict.fromkeys((names.FAILED, names.DIVERGED), "FAILED")
MLFLOW_STATUS |= dict.fromkeys((names.SKIPPED, names.INTERRUPTED), "KILLED")
PER_RUN = (names.TIME_PREFIX, names.LATENT_PREFIX)
"""Metrics of which the store has only the final value. Those of each epoch are in history.json."""


def param(name: str, value: object) -> Param:
    """Return a param that fits into MLflow: at most 6,000 characters."""
    return Param(name, truncated(str(value), 6000))


def tag(name: str, value: str) -> RunTag:
    """Return a tag that fits into MLflow: at most 8,000 characters."""
    return RunTag(name, truncated(value, 8000))


def truncated(text: str, limit: int) -> str:
    """Return a text that a database can hold, visibly cut: MLflow would cut it silently."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    end = f"… ({len(text)} characters)"
    return text if len(text) <= limit else text[: limit - len(end)] + end


def attempt_until(last: Record, attempt: Attempt) -> Attempt:
    """Return the attempt up to this record: the driver may be ahead, and adds more meanwhile."""
    records = list(attempt.records)
    while records[-1] is not last:
        records.pop()
    return Attempt(records)


def resumes(record: Record, attempt: Attempt) -> bool:
    """Return whether a record is a further start of its attempt, after it was cut short."""
    return isinstance(record.event, Started) and record is not attempt.records[0]


def newest_tags(entities: Sequence[Entity]) -> list[Entity]:
    """Return the entities with each tag once, as it was set last: a call takes no tag twice."""
    tags = {entity.key: entity for entity in entities if isinstance(entity, RunTag)}
    return [*(entity for entity in entities if not isinstance(entity, RunTag)), *tags.values()]


def metrics_and_tags(record: Record, attempt: Attempt) -> list[Entity]:
    """Return the metrics of a record, and the tags if it ends or resumes its attempt."""
    event: Event = record.event
    entities: list[Entity] = []
    if isinstance(event, EpochDone):
        values = {name: value for name, value in event.metrics.items() if not name.startswith(PER_RUN)}
        entities = [Metric(name, value, record.time_ms, event.step) for name, value in values.items()]
    elif isinstance(event, Finished):
        values = {name: value for name, value in event.metrics.items() if not name.startswith(names.VAL_PREFIX)}
        entities = [Metric(name, value, record.time_ms, 0) for name, value in values.items()]  # drawn as bars
    elif isinstance(event, TERMINAL):
        entities.append(RunTag(names.TAG_ERROR, visible(getattr(event, "error", ""), 4900)))
    elif resumes(record, attempt):
        starts = sum(isinstance(each.event, Started) for each in attempt.records)
        entities += [RunTag(names.TAG_STARTS, str(starts)), RunTag(names.TAG_ERROR, "")]
        entities.append(RunTag(names.TAG_STATUS, names.RUNNING))
    if isinstance(event, TERMINAL):
        entities += [RunTag(names.TAG_STATUS, event.kind), RunTag(names.TAG_END, str(record.time_ms))]
    return entities


def artifacts_by_name(record: Record, attempt: Attempt) -> dict[str, bytes]:
    """Return the artifacts of a record, by name."""
    event: Event = record.event
    if isinstance(event, Started):
        return {names.PROVENANCE_FILE: json.dumps(event.provenance, indent=1).encode()}
    if isinstance(event, Picture):
        return {f"{names.PICTURES_FOLDER}/{event.name}.png": event.png} if event.final else {}
    if isinstance(event, Latents):
        return {names.LATENTS_FILE: json.dumps(asdict(event)).encode()}
    if isinstance(event, Weights):
        return {names.WEIGHTS_FILE: event.content}
    if not isinstance(event, TERMINAL):
        return {}
    rows = [{"epoch": e.epoch, "step": e.step, "elapsed_s": e.elapsed_s, **e.metrics} for e in attempt.epochs]
    files = {names.HISTORY_FILE: json.dumps(rows).encode()}
    if traceback := getattr(event, "traceback", ""):
        files[names.TRACEBACK_FILE] = traceback.encode(errors="backslashreplace")
    return files


def artifact_checksums(attempt: Attempt) -> dict[str, str]:
    """Return the SHA-256 of all artifacts of an attempt, by name."""
    found: dict[str, str] = {}
    for record in attempt.records:
        contents = artifacts_by_name(record, attempt)
        if isinstance(event := record.event, Picture | Weights):  # their bytes may not be in the journal
            found |= dict.fromkeys(contents, event.sha256)
        else:
            found |= {name: sha256(content) for name, content in contents.items()}
    return found


def checksum_tag(checksums: Mapping[str, str]) -> RunTag:
    """Return the tag by which a reader verifies a run's files: their SHA-256 by name, as JSON."""
    return RunTag(names.TAG_CHECKSUMS, json.dumps(checksums))


def stated_checksums(tags: Mapping[str, str]) -> dict[str, str]:
    """Return what that tag says; nothing if there is none or it cannot be read."""
    try:
        stated = json.loads(tags.get(names.TAG_CHECKSUMS, "{}"))
    except (ValueError, RecursionError):
        return {}
    return stated if isinstance(stated, dict) else {}


def sha256(content: bytes) -> str:
    """Return the SHA-256 as hexadecimal text."""
    return hashlib.sha256(content).hexdigest()


def batches(entities: Sequence[Entity]) -> Iterator[list[Entity]]:
    """Yield the entities in order, in batches that MLflow takes in one call."""
    batch: list[Entity] = []
    room = dict(MAX_PER_CALL)
    for entity in entities:
        if not room[type(entity)] or len(batch) == MAX_ENTITIES_PER_CALL:
            yield batch
            batch, room = [], dict(MAX_PER_CALL)
        batch.append(entity)
        room[type(entity)] -= 1
    if batch:
        yield batch
