"""Say in one line what would keep `mlserver start serving` from serving.

MLServer itself prints a stack trace when a port is taken.
"""

import sys

from mlserver.settings import Settings
from pydantic import ValidationError

from serving.packaged import REPOSITORY, RepositoryError, models_in
from serving.ports import refusal
from serving.server import ServerError


def check_ports(settings: Settings) -> None:
    """Raise ServerError for a port that these settings ask for and that cannot be had."""
    for name in ("http_port", "grpc_port", "metrics_port"):
        port = getattr(settings, name)
        if why := refusal(settings.host, port, f"MLSERVER_{name.upper()}"):
            raise ServerError(why)


def main() -> None:
    sys.path.insert(0, str(REPOSITORY))  # as MLServer does, for what settings.json names
    try:
        models_in(REPOSITORY)
        settings = Settings.model_validate_json((REPOSITORY / "settings.json").read_bytes())
        check_ports(settings)
    except (RepositoryError, ServerError) as error:
        sys.exit(f"error: {error}")
    except ValidationError as invalid:
        (first, *_) = invalid.errors()
        name = ".".join(map(str, first["loc"]))
        sys.exit(f"error: MLServer's setting {name} is {first['input']!r}: {first['msg']}")
    print(
        f"Try it, once both models are ready: http://localhost:{settings.http_port}/demo",
        flush=True,
    )


if __name__ == "__main__":
    main()
