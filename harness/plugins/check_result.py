"""What one conformance check found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """What one check of a plug-in found, in words; if it failed, with `place`, the file and line to look at."""

    check: str
    text: str
    failed: bool = False
    place: str | None = None
