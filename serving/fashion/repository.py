"""The repository that settings.json names; importing it installs this project's servers."""

import os

# OpenMP's threads spin while they wait, and would take the processor from the event loop and the
# threads of models. Set before the libraries load that read it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from .adapter.patches import install
from .adapter.repository import Repository

__all__ = ["Repository"]

install()
