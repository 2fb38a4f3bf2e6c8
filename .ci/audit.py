"""Ask pip-audit whether any package of requirements.txt has a known vulnerability; fail if so.

The arguments are the command that runs pip-audit. If no vulnerability database is reachable, print that and succeed:
the packages are pinned by hash.
"""

from __future__ import annotations

import json
import subprocess
import sys

COMMAND = [
    "--requirement",
    "requirements.txt",
    "--require-hashes",
    "--disable-pip",
    "--format",
    "json",
    "--timeout",
    "10",
]


def main(*program: str) -> int:
    """Run pip-audit; return 1 if it reports vulnerabilities."""
    try:
        done = subprocess.run([*program, *COMMAND], capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
        packages = json.loads(done.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError):
        packages = []
    audited = [each for each in packages if "skip_reason" not in each]
    found = [f"{each['name']} {each['version']}: {bug['id']}" for each in audited for bug in each["vulns"]]
    summary = f"{len(audited)} of {len(packages)} packages audited, {len(found)} known vulnerabilities"
    print("\n".join([summary if audited else "NOT AUDITED: no vulnerability database is reachable from here", *found]))  # noqa: T201
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
