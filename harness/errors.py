"""Errors whose message is meant for the user."""


class UserError(Exception):
    """Something that the user can mend. The message says so in one line; the command line prints it and no traceback.

    `exit_code` is that of the command: 2 where the input was refused.
    """

    exit_code = 2


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
