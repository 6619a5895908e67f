"""What environment variables say, as for any Unix tool: an empty one is not set, and `~` is the home folder.

docs/environment.md lists them.
"""

import os
import pwd
from pathlib import Path

from harness.errors import UserError


class EnvironmentProblem(UserError):  # noqa: N818 it says what is wrong with the surroundings
    """Something that is needed of the surroundings is not there."""


def variable(name: str) -> str | None:
    """Return the value of a variable, or None where it is not set or empty."""
    return os.environ.get(name) or None


def path_variable(name: str) -> Path | None:
    """Return the path that a variable holds, or None where it is not set or empty."""
    value = variable(name)
    return None if value is None else expanded(value)


def expanded(text: str) -> Path:
    """Return the path with `~` or `~user` at its beginning replaced; where there is no such user it stays."""
    first, separator, rest = text.partition("/")
    if first == "~":
        return home() / rest
    if first.startswith("~"):
        try:
            return Path(pwd.getpwnam(first[1:]).pw_dir + separator + rest)
        except KeyError:
            return Path(text)
    return Path(text)


def user_folder(xdg: str, below_home: str) -> Path:
    """Return the folder of $XDG_…, which must be absolute to count, else the one in the home folder."""
    chosen = path_variable(xdg)
    return chosen if chosen is not None and chosen.is_absolute() else home() / below_home


def home() -> Path:
    """Return $HOME, else what the system knows of this user. Raises EnvironmentProblem where neither says."""
    if (chosen := variable("HOME")) is not None:
        return Path(chosen)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise EnvironmentProblem(
            f"HOME: expected the home folder, got none, and user {os.getuid()} is not known to this system. "
            "Set HOME, or HARNESS_DATA_DIR for data sets."
        ) from None


def check_current_folder() -> None:
    """Raise EnvironmentProblem where the current folder was deleted: no relative path means anything then."""
    try:
        os.getcwd()
    except OSError as error:
        raise EnvironmentProblem(
            f"current folder: expected one that exists, got: {error.strerror}. Change to another one."
        ) from error
