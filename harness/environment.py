"""Environment variables as in any Unix tool: an empty one counts as not set, and `~` is the home folder.

docs/environment.md lists them.
"""

import os
import pwd
from pathlib import Path

from harness.errors import UserError


class SurroundingsError(UserError):
    """The home folder or the current folder does not exist."""


def variable(name: str) -> str | None:
    """Return the value of a variable, or None if it is not set or empty."""
    return os.environ.get(name) or None


def path_variable(name: str) -> Path | None:
    """Return the path in a variable, or None if it is not set or empty."""
    value = variable(name)
    return None if value is None else expanded(value)


def expanded(text: str) -> Path:
    """Return the path with `~` or `~user` at its start replaced, if there is such a user."""
    first, _, rest = text.partition("/")
    return home() / rest if first == "~" else Path(os.path.expanduser(text))


def user_folder(xdg: str, below_home: str) -> Path:
    """Return the folder of an XDG variable if it is absolute, else the given folder in the home folder."""
    chosen = path_variable(xdg)
    return chosen if chosen is not None and chosen.is_absolute() else home() / below_home


def home() -> Path:
    """Return $HOME, else the home folder that the system knows. Raises SurroundingsError if there is neither."""
    if (chosen := variable("HOME")) is not None:
        return Path(chosen)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise SurroundingsError(
            f"HOME: expected the home folder, got none, and user {os.getuid()} is not known to this system. "
            "Set HOME, or HARNESS_DATA_DIR for data sets."
        ) from None


def check_current_folder() -> None:
    """Raise SurroundingsError if the current folder was deleted, since relative paths do not work then."""
    try:
        os.getcwd()
    except OSError as error:
        raise SurroundingsError(
            f"current folder: expected one that exists, got: {error.strerror}. Change to another folder."
        ) from error
