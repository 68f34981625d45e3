"""What an earlier git revision packaged, from DVC's cache or remote."""

from pathlib import Path

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import SCM, SCMError
from dvc_data.index import DataIndexError

from stages.console import StageError


def fetch_version(version: str, revision: str, source: Path, target: Path) -> None:
    """Copy what a git revision packaged as a version, from DVC's cache or remote.

    source: of the folder, relative to the project's root. Raises StageError.
    """
    setting = f"params.yaml: package.previous.{version} is {revision}"
    try:
        # By the root of the git repository, of which the project may be a subfolder.
        path = Path.cwd().relative_to(SCM(".").root_dir) / source
        files = DVCFileSystem(rev=revision, subrepos=True)
        if not files.isdir(path.as_posix()):
            raise StageError(
                f"{setting}, which packaged no {source}; expected the revision that released it"
            )
        files.get(path.as_posix(), str(target), recursive=True)
    except SCMError:
        raise StageError(f"{setting}; expected a git revision of this repository") from None
    except (DvcException, DataIndexError, OSError) as error:
        reason = " ".join(str(error).split())
        raise StageError(
            f"{setting}; expected its files in DVC's cache or remote, where dvc push puts them "
            f"from the checkout that has them: {reason}"
        ) from None
