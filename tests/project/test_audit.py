"""`make audit`: vulnerabilities fail, an unreachable list is reported, and every ignored one has a reason."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

FINE = {"name": "fine", "version": "1", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"], "aliases": []}]}


@pytest.fixture
def audit(tmp_path: Path):
    """A function that runs the script with a pip-audit that prints the given text if its arguments hold `when`."""
    shutil.copy(ROOT / ".ci" / "audit.py", tmp_path)

    def run(said: object, *, code: int = 0, when: str = "", ignore: str = "") -> tuple[int, str]:
        (tmp_path / "audit-ignore.txt").write_text(ignore)
        text = json.dumps({"dependencies": said}) if isinstance(said, list) else str(said)
        (tmp_path / "pip_audit.py").write_text(
            f"import sys\nok = {when!r} in ' '.join(sys.argv)\nprint({text!r} if ok else 'x')\n"
            f"print('ConnectionError: no network', file=sys.stderr)\nsys.exit({code})\n"
        )
        command = [sys.executable, str(tmp_path / "audit.py")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_nothing_found_passes(audit) -> None:
    assert audit([FINE, UNKNOWN]) == (0, "audit: 1 packages, 0 vulnerabilities (pypi; 1 not known to it).\n")


def test_a_vulnerability_fails_with_the_list(audit) -> None:
    code, said = audit([FINE, BAD], code=1)
    assert code == 1
    assert said.splitlines()[0] == "bad 2: CVE-1, mended in 3"


@pytest.mark.parametrize(("said", "code"), [("Traceback", 1), ("", 1), ([UNKNOWN], 0), ([], 0), ("[]", 0)])
def test_if_no_list_can_be_reached_one_line_says_so_and_it_passes(audit, said, code) -> None:
    found, line = audit(said, code=code)
    assert found == 0
    assert line.count("\n") == 1
    assert line.startswith("audit: expected a list of vulnerabilities to compare with, reached none (pypi: ")
    assert line.endswith("Not audited.\n")


def test_the_second_list_is_asked_where_the_first_does_not_answer(audit) -> None:
    code, said = audit([BAD], code=1, when="--vulnerability-service osv")
    assert code == 1
    assert "(osv; 0 not known to it)" in said


def test_ignored_vulnerabilities_have_a_reason(audit) -> None:
    assert audit([FINE], ignore="# none\n\nCVE-1 we do not use it\n", when="--ignore-vuln CVE-1")[0] == 0
    code, said = audit([FINE], ignore="CVE-1\n")
    assert code == 1
    assert said == "audit-ignore.txt: expected an id and the reason to ignore it, got 'CVE-1'.\n"
