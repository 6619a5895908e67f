"""Errors whose message is meant for the user."""


class UserError(Exception):
    """An error that the user can fix. The command line prints its message, one line, without a traceback.

    `exit_code` is that of the command: 2 if the input was refused.
    """

    exit_code = 2


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
