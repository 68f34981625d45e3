"""What settings.json names, through which MLServer starts with the parts of this folder."""

from .adapter.patches import install
from .adapter.repository import Repository

__all__ = ["Repository"]

install()
