"""Ask the server of this machine whether it serves each packaged model: 0 if so, else 1 and why.

The health check of the image; a cluster names the repository that it has mounted. Needs nothing
but Python, so that it starts quickly.
"""

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from serving.fashion.packaged import REPOSITORY, RepositoryError, models_in

HOST, PORT = "127.0.0.1", 8080  # MLServer's own, where MLSERVER_HTTP_PORT does not say otherwise
TIMEOUT_SECONDS = 4.0


def unready(repository: Path, port: int) -> list[str]:
    """What keeps a repository's models from being served, a sentence each; empty if all are.

    Raises RepositoryError where nothing is packaged.
    """
    found = []
    for model in models_in(repository):
        connection = HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", f"/v2/models/{model.name}/versions/{model.version}/ready")
            status = connection.getresponse().status
            if status != HTTPStatus.OK:
                found.append(f"{model.name} {model.version} is not ready: HTTP {status}")
        except (OSError, HTTPException) as error:
            found.append(f"{model.name} {model.version}: no answer from port {port}: {error}")
        finally:
            connection.close()
    return found


def main() -> None:
    repository = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY
    try:
        found = unready(repository, int(os.environ.get("MLSERVER_HTTP_PORT", PORT)))
    except RepositoryError as error:
        sys.exit(f"error: {error}")
    if found:
        sys.exit(f"error: {'; '.join(found)}")


if __name__ == "__main__":
    main()
