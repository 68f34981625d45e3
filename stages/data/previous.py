"""What an earlier git revision packaged, from DVC's cache or remote."""

from collections.abc import Iterable
from pathlib import Path

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import SCM, SCMError
from dvc_data.index import DataIndexError

from stages.console import StageError


def fetch_version(
    version: str, revision: str, names: Iterable[str], repository: Path, target: Path
) -> None:
    """Copy what a git revision packaged as a version of models, from DVC's cache or remote.

    names: of the models, of which some may be newer; repository: their folder, relative to the
    project's root. Raises StageError, also where it had none of them.
    """
    setting = f"params.yaml: package.previous.{version} is {revision}"
    try:
        # By the root of the git repository, of which the project may be a subfolder.
        root = Path.cwd().relative_to(SCM(".").root_dir) / repository
        files = DVCFileSystem(rev=revision, subrepos=True)
        found = [n for n in names if files.isdir((root / n / version).as_posix())]
        if not found:
            raise StageError(
                f"{setting}, which packaged no {version} in {repository}; "
                "expected the revision that released it"
            )
        for name in found:
            path = (root / name / version).as_posix()
            files.get(path, str(target / name / version), recursive=True)
    except SCMError:
        raise StageError(f"{setting}; expected a git revision of this repository") from None
    except (DvcException, DataIndexError, OSError) as error:
        reason = " ".join(str(error).split())
        raise StageError(
            f"{setting}; expected its files in DVC's cache or remote, where dvc push puts them "
            f"from the checkout that has them: {reason}"
        ) from None
