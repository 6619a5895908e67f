"""Hold the installed packages against the lists of known vulnerabilities: `make audit`.

Exit code 1, with a line for each, where one is found that audit-ignore.txt does not name; that file has an id a line
and why it does not concern us. Where no list can be reached, one line says so and the exit code is 0.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SERVICES = ("pypi", "osv")
TIMEOUT_S = 240
IGNORED = Path(__file__).with_name("audit-ignore.txt")


def main() -> int:
    failures = []
    for service in SERVICES:
        found, failure = ask(service)
        audited = [package for package in found if "vulns" in package]
        if audited:
            return judge(audited, len(found) - len(audited), service)
        failures.append(f"{service}: {failure or f'it knows none of {len(found)} packages'}")
    print(
        f"audit: expected a list of vulnerabilities to compare with, reached none ({'; '.join(failures)}). Not audited."
    )
    return 0


def ask(service: str) -> tuple[list[dict[str, Any]], str]:
    """The packages as pip-audit reports them, or none and why."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    command += ["--skip-editable", "--vulnerability-service", service]
    for line in ignored():
        command += ["--ignore-vuln", line]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return [], f"no answer within {TIMEOUT_S} s"
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError, TypeError):
        return [], (done.stderr.strip().splitlines() or ["no message"])[-1][:200]


def ignored() -> list[str]:
    """The ids that are known not to concern us; a line without a reason is refused."""
    ids = []
    for line in IGNORED.read_text(encoding="utf-8").splitlines() if IGNORED.exists() else []:
        name, _, reason = line.partition(" ")
        if not line.strip() or line.startswith("#"):
            continue
        if not reason.strip():
            sys.exit(f"{IGNORED.name}: expected an id and the reason to ignore it, got {line!r}.")
        ids.append(name)
    return ids


def judge(audited: list[dict[str, Any]], n_unknown: int, service: str) -> int:
    lines = [
        f"{package['name']} {package['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'none'}"
        for package in audited
        for one in package["vulns"]
    ]
    lines.append(
        f"audit: {len(audited)} packages, {len(lines)} vulnerabilities ({service}; {n_unknown} not known to it)."
    )
    print("\n".join(lines))
    return 1 if len(lines) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
