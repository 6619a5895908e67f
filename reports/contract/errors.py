"""The error that reports raise for their reader."""


class ReportError(Exception):
    """Runs that cannot be read, or a report that cannot be made of them. The message is one line."""
