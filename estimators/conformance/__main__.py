"""`python -m estimators.conformance FILE`: every check on the estimators that a file defines."""

import sys
from collections.abc import Sequence
from inspect import isabstract
from io import TextIOWrapper
from itertools import product
from pathlib import Path
from runpy import run_path

from estimators.base import Estimator
from estimators.conformance.checks import CHECKS
from estimators.declarations import example

USAGE = "usage: python -m estimators.conformance FILE"


def main(arguments: Sequence[str]) -> int:
    """Check every estimator of a file and print the results. Return 1 if a check failed, 2 if nothing was checked."""
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal may lack a letter of an error
        sys.stdout.reconfigure(errors="backslashreplace")
    if arguments in (["-h"], ["--help"]):
        print(f"{USAGE}\n\nRun every check on the estimators that a Python file defines.")
        return 0
    if len(arguments) != 1:
        return _refuse(f"expected one file, got {len(arguments)} arguments")
    (path,) = arguments
    if not Path(path).is_file():
        return _refuse(f"{path}: expected a Python file, got {'a folder' if Path(path).is_dir() else 'no such file'}")
    try:
        own = [value for value in run_path(path).values() if getattr(value, "__module__", "") == "<run_path>"]
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a user's file may raise anything
        return _refuse(f"{path}: expected a file that can be imported, got {type(error).__name__}: {error}")
    classes = [cls for cls in own if isinstance(cls, type) and issubclass(cls, Estimator) and not isabstract(cls)]
    if not classes:
        return _refuse(f"{path}: expected a class derived from Estimator, got none")
    n_failed = 0
    for cls, check in product(classes, CHECKS):
        try:
            print(f"{cls.name}: {check.__name__}: {check(example(cls))}")
        except Exception as error:  # noqa: BLE001  # a user's class may raise anything
            n_failed += 1
            print(f"{cls.name}: {check.__name__}: FAILED: {error}")
    print(f"{len(classes) * len(CHECKS) - n_failed} checks passed, {n_failed} failed.")
    return int(n_failed > 0)


def _refuse(problem: str) -> int:
    print(f"{' '.join(problem.split())}.\n{USAGE}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
