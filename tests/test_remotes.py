"""Models reach a machine that never trained, by DVC.  Run: pytest tests/test_remotes.py"""

from pathlib import Path

from processes import check_served
from scratch import commit, files_in, install, run
from wire import MODELS

from stages.data.processed import PROCESSED, read_npz

PACKAGED = "serving/models"


def test_models_that_were_pushed_are_served_where_nothing_was_trained(
    project: Path, tmp_path: Path
):
    run(project, "dvc", "remote", "add", "--default", "storage", str(tmp_path / "store"))
    commit(project, "Name a remote")
    run(project, "dvc", "push")

    other = tmp_path / "other"
    (tmp_path / "home").mkdir()  # so that nothing but the remote is shared
    apart = {"HOME": str(tmp_path / "home"), "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    run(tmp_path, "git", "clone", "-q", str(project), str(other))
    install(other)
    run(other, "make", "pull", expect=0, **apart)
    assert files_in(other / PACKAGED) == files_in(project / PACKAGED)
    assert not (other / "data").exists()
    labels = check_served("make serve", other / PACKAGED / "example.json", other)
    right = read_npz(project / PROCESSED / "test.npz").labels[0]
    assert labels == dict.fromkeys(MODELS, right)
