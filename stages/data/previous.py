"""What an earlier git revision packaged, from DVC's cache or remote."""

from pathlib import Path

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import SCMError

from stages.console import StageError


def fetch_version(version: str, revision: str, source: Path, target: Path) -> None:
    """Copy what a git revision packaged as a version, from DVC's cache or remote.

    source: of the folder, relative to the project's root. Raises StageError.
    """
    setting = f"params.yaml: package.previous.{version} is {revision}"
    try:
        files = DVCFileSystem(rev=revision)
        if not files.isdir(source.as_posix()):
            raise StageError(
                f"{setting}, which packaged no {source}; expected the revision that released it"
            )
        files.get(source.as_posix(), str(target), recursive=True)
    except SCMError:
        raise StageError(f"{setting}; expected a git revision of this repository") from None
    except (DvcException, OSError) as error:
        reason = " ".join(str(error).split())
        raise StageError(
            f"{setting}: its files are not in the cache or the remote, try dvc fetch: {reason}"
        ) from None
