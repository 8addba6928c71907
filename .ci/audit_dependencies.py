"""Known vulnerabilities of the installed packages, as pip-audit tells them: said, and never a failure.

A new advisory must not turn an unchanged commit red, nor may a service that is away.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

SECONDS = 60
COMMAND = ["-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner", "off", "--timeout", "10"]


def audit() -> str:
    """What was found, or in one line why nothing was asked."""
    if find_spec("pip_audit") is None:
        return "audit of dependencies skipped: pip-audit is not installed (pip install pip-audit)"
    command = [sys.executable, *COMMAND, "--format", "json"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        packages = json.loads(found.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return f"audit of dependencies skipped: the advisory service did not answer within {SECONDS} s"
    except (ValueError, KeyError):
        last = (found.stderr.strip() or "no answer").splitlines()[-1]
        return f"audit of dependencies skipped: the advisory service is not reached ({last[:160]})"
    known = [package for package in packages if "vulns" in package]
    if not known:  # pip-audit calls this "no known vulnerabilities"
        return (
            f"audit of dependencies skipped: the advisory service knows none of the {len(packages)} packages"
        )
    lines = [
        f"warning: {package['name']} {package['version']} has {flaw['id']}, mended in {flaw['fix_versions']}"
        for package in known
        for flaw in package["vulns"]
    ]
    asked = f"{len(known)} of {len(packages)} packages were looked up"
    return "\n".join([*lines, f"audit of dependencies: {len(lines)} known vulnerabilities, {asked}"])


if __name__ == "__main__":
    print(audit())
