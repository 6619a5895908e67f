r"""Checks that every estimator must pass, built in or a user's own.

    from estimators.conformance import check_all
    print("\n".join(check_all(MyRelaxation())))

For the estimators of a file: `python -m estimators.conformance my_relaxation.py`.
"""

from estimators.conformance.checks import CHECKS, QUICK, Check, check_all

__all__ = ["CHECKS", "QUICK", "Check", "check_all"]
