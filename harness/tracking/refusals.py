"""Values that a store refuses for good. Only they are lost: each is named once, and everything else is stored.

An outage is different: the store may take the same values later (`harness.tracking.errors`).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DataError, IntegrityError, NotSupportedError

from harness.tracking.errors import STORE_ERRORS
from harness.tracking.records import Entity
from reports.contract.text import NAME_LENGTH, first_line, visible

MAX_NAMED = 5
"""How many refusals are named: a value that is refused in every epoch of a thousand runs would fill the screen."""

_REFUSED = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS"})
_CAUSES = (DataError, IntegrityError, NotSupportedError, UnicodeError)
_IN_WORDS = re.compile(
    r"\.(DataError|IntegrityError|NotSupportedError|StringDataRightTruncation)\b|Incorrect string value|error code 413 "
)
"""How a server says the same: its text contains the exception of its database, or the request was too large. MySQL
calls a letter that its tables lack an operational error."""
_NOT_THE_VALUE = re.compile(r"in the 'active' state|active lifecycle|deleted|FOREIGN KEY|workspace", re.IGNORECASE)
"""What MLflow and its databases say if something else is wrong: a run that was deleted meanwhile, which a replay
creates again, or a server that is not set up."""


def is_permanent(error: BaseException) -> bool:
    """Return whether a store refused a value, and will do so again."""
    text = str(error).partition("[SQL")[0]  # a statement names columns such as deleted_time
    if _NOT_THE_VALUE.search(text):
        return False
    if isinstance(error.__cause__, _CAUSES) or isinstance(error, _CAUSES):
        return True
    return isinstance(error, MlflowException) and (error.error_code in _REFUSED or bool(_IN_WORDS.search(text)))


def hint(error: BaseException) -> str:
    """Return whether the same command can help after this error, as a sentence."""
    if is_permanent(error):
        return "Trying again does not help: the store refuses it permanently. The journal has everything."
    return "The same command continues."


@final
class Refusals:
    """The count of what a store refused, and lines about it that are not shown yet.

    `on_answer` is called whenever the store has answered with a refusal: it is not down.
    """

    def __init__(self) -> None:
        self.count = 0
        self.on_answer: Callable[[], None] = lambda: None
        self._known: set[str] = set()
        self._new_lines: list[str] = []

    def new_lines(self) -> list[str]:
        """Return the lines that were not shown yet."""
        lines, self._new_lines = self._new_lines, []
        return lines

    @contextmanager
    def tolerated(self, what: str) -> Iterator[None]:
        """Note a refusal within this context and go on; raise everything else."""
        try:
            yield
        except STORE_ERRORS as error:
            if not is_permanent(error):
                raise
            self._note(what, error)

    def log(self, write: Callable[[Sequence[Entity]], None], entities: Sequence[Entity]) -> None:
        """Write entities. If the store refuses a call, write its halves, until each refused value stands alone."""
        try:
            write(entities)
        except STORE_ERRORS as error:
            if not is_permanent(error):
                raise
            self.on_answer()
            if len(entities) == 1:
                self._note(f"{type(entities[0]).__name__.lower().removeprefix('run')} {entities[0].key}", error)
                return
            half = len(entities) // 2
            self.log(write, entities[:half])
            self.log(write, entities[half:])

    def _note(self, what: str, error: BaseException) -> None:
        self.count += 1
        what = visible(what, NAME_LENGTH)
        if what in self._known:
            return
        self._known.add(what)
        if len(self._known) <= MAX_NAMED:
            self._new_lines.append(f"tracking: the store refused the {what}: {first_line(error)}")
        elif len(self._known) == MAX_NAMED + 1:
            self._new_lines.append("tracking: the store refuses more values; they are counted at the end")
