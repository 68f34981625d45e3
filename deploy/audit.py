"""Look up every package of both locks among the known vulnerabilities, by pip-audit.

    python -m deploy.audit [--vulnerability-service osv --osv-url URL]

Fails for each one found that is not explained below, and for each package that nothing is known of.
"""

import subprocess
import sys

from stages.errors import StageError, run

LOCKS = ("requirements.lock", "deploy/requirements.lock")
EXPLAINED = {
    "CVE-2026-109156": "MLServer unpacks a model's environment_tarball unfiltered. No model here "
    "has one, and nothing is loaded by request unless settings.json allows it.",
}


def main() -> None:
    command = [sys.executable, "-m", "pip_audit", "--strict", "--require-hashes", "--disable-pip"]
    command += [f"--requirement={lock}" for lock in LOCKS]
    command += [f"--ignore-vuln={name}" for name in EXPLAINED]
    done = subprocess.run([*command, *sys.argv[1:]], stderr=subprocess.PIPE, text=True, check=False)
    for name, why in EXPLAINED.items():
        print(f"not counted: {name}: {why}", flush=True)
    said = done.stderr.strip().rpartition("\n")[2].removeprefix("ERROR:pip_audit._cli:")
    if not done.returncode:
        print(said)
    elif said.startswith("Found "):
        raise StageError(f"{said}; upgrade, or explain it in deploy/audit.py")
    else:
        raise StageError(f"the locks could not be audited: {said}")


if __name__ == "__main__":
    run(main)
