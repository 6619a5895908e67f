"""The store fails at any of its calls: afterwards it has everything once, and the user was told once."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from outages import Said, check, play, replay, small_grid
from sqlalchemy.exc import OperationalError

from harness.tracking import Tracker

CALLS = ("create_", "delete_", "get_", "list_", "log_", "restore_", "search_", "set_", "update_")
Fails = Callable[[int], str]


def away(message: str) -> MlflowException:
    """Return what MLflow raises where its database does not answer."""
    error = MlflowException(message)
    error.__cause__ = OperationalError(message, None, Exception())
    return error


class UploadError(Exception):
    """What the library of an artifact store raises, such as boto3: MLflow lets it pass."""


class Client:
    """Numbers the calls of MLflow's client, those that its methods make of each other too, and fails as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fails: Fails = lambda number: ""
        for name in dir(MlflowClient):
            if name.startswith(CALLS):
                monkeypatch.setattr(MlflowClient, name, self._wrapped(name, getattr(MlflowClient, name)))

    def _wrapped(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            self.calls.append(name)
            how = self.fails(len(self.calls))
            if how == "before":
                raise away(f"no answer to {name}")
            if how == "upload":
                raise UploadError("the bucket is gone\nand more")
            result = method(*given, **named)
            if how == "after":
                raise away(f"the answer to {name} was lost")
            return result

        return call


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(monkeypatch)


def once(k: int, how: str) -> Fails:
    return lambda number: how if number == k else ""


def from_then_on(k: int) -> Fails:
    return lambda number: "before" if number >= k else ""


def fresh(client: Client, new_out: Iterator[Path], fails: Fails, size: int) -> tuple[Path, Said, str]:
    """Play the sweep into a new store that fails so. Return its folder, what was said, and the store."""
    out = next(new_out)
    uri = f"sqlite:///{out / 'mlflow.db'}"
    client.calls.clear()
    client.fails = fails
    said = play(small_grid(out), out, lambda: Tracker(uri, out=out), size=size)
    return out, said, uri


@pytest.fixture
def new_out(tmp_path: Path, out: Path) -> Iterator[Path]:
    """New output folders with an empty store, without end."""
    empty = (out / "mlflow.db").read_bytes()

    def folders() -> Iterator[Path]:
        for number in itertools.count():
            folder = tmp_path / f"out{number}"
            folder.mkdir()
            (folder / "mlflow.db").write_bytes(empty)
            yield folder

    return folders()


def fail_each_call(
    client: Client, new_out: Iterator[Path], fails_at: Callable[[int], Fails], size: int, ks: range
) -> None:
    out, said, uri = fresh(client, new_out, lambda number: "", size)
    n_calls = len(client.calls)
    assert said.lines == []
    check(small_grid(out), out, uri)
    assert n_calls > 20
    for k in ks:
        if k > n_calls:
            return
        out, said, uri = fresh(client, new_out, fails_at(k), size)
        failed = client.calls[k - 1]
        client.fails = lambda number: ""
        grid = small_grid(out)
        try:
            assert said.outages() == 1
            replay(grid, out, uri)
            check(grid, out, uri)
            assert replay(grid, out, uri) == 0
            check(grid, out, uri)
        except AssertionError as error:
            raise AssertionError(f"call {k} ({failed}) of {n_calls}, {size} records at a time") from error


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_call_that_fails_once_leaves_everything_once(client: Client, new_out: Iterator[Path], how: str) -> None:
    fail_each_call(client, new_out, lambda k: once(k, how), 3, range(1 if how == "before" else 4, 1000, 19))


@pytest.mark.parametrize("call", ["log_artifacts", "log_image"])
def test_an_artifact_store_with_exceptions_of_its_own_is_away_as_any_other(
    client: Client, new_out: Iterator[Path], call: str
) -> None:
    def fails(number: int) -> str:
        return "upload" if client.calls[-1] == call and client.calls.count(call) == 2 else ""

    out, said, uri = fresh(client, new_out, fails, 1)
    lost, found = said.lines
    assert "the store stopped answering (UploadError: the bucket is gone). The sweep continues" in lost
    assert "the store answers again" in found
    check(small_grid(out), out, uri)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("how", ["before", "after"])
def test_every_call_that_fails_once_leaves_everything_once(
    client: Client, new_out: Iterator[Path], how: str, size: int
) -> None:
    fail_each_call(client, new_out, lambda k: once(k, how), size, range(1, 1000))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
def test_every_call_from_which_on_the_store_is_away_leaves_everything_once(
    client: Client, new_out: Iterator[Path], size: int
) -> None:
    fail_each_call(client, new_out, from_then_on, size, range(1, 1000))


def test_an_outage_is_noticed_where_mlflow_logs_by_a_thread_of_its_own(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    grid, uri, calls = small_grid(out.parent, 2), f"sqlite:///{out / 'mlflow.db'}", list[str]()
    whole = SqlAlchemyStore.log_batch

    def fails_at_fourth(store: SqlAlchemyStore, run_id: str, *what: object, **named: object) -> object:
        calls.append(run_id)
        if len(calls) == 4:
            raise MlflowException("database is locked")
        return whole(store, run_id, *what, **named)

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", fails_at_fourth)
    said = play(grid, out, lambda: Tracker(uri, out=out))
    assert said.outages() == 1
    check(grid, out, uri)
