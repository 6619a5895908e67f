"""Errors whose message is meant for the user, and what such messages share."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something that the user can mend. The message says so in one line; the command line prints it and no traceback.

    `exit_code` is that of the command: 2 where the input was refused.
    """

    exit_code = 2


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def did_you_mean(word: object, known: Iterable[str], cutoff: float = 0.65) -> str:
    """Return `Did you mean 'NAME'?` with the known name that is most alike, or an empty text if none is."""
    if not isinstance(word, str) or len(word) >= 100:
        return ""
    small = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), list(small), n=1, cutoff=cutoff)
    return f"Did you mean {small[close[0]]!r}?" if close else ""
