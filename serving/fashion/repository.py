"""What settings.json names, through which MLServer starts with the parts of this folder."""

import os

# The event loop and the threads of models share the processor; OpenMP's, which wait by spinning,
# would take it from them. Set before the libraries load that read it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from .adapter.patches import install
from .adapter.repository import Repository

__all__ = ["Repository"]

install()
