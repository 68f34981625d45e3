"""Print what an image holds, as JSON. Runs inside of it, where there is nothing but Python."""

import json
import platform
from importlib.metadata import distributions
from pathlib import Path


def main() -> None:
    system = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    status = Path("/var/lib/dpkg/status")  # of Debian and what descends from it
    packages = [
        {
            "name": found.metadata["Name"],
            "version": found.version,
            "license": found.metadata.json.get("license_expression"),
        }
        for found in distributions()
    ]
    models = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in Path("serving/models").rglob("model-settings.json")
    ]
    contents = {
        "system": dict(line.replace('"', "").split("=", 1) for line in system if "=" in line),
        "python": platform.python_version(),
        "packages": packages,
        "dpkg": status.read_text(encoding="utf-8") if status.exists() else "",
        "models": models,
    }
    print(json.dumps(contents))


if __name__ == "__main__":
    main()
