"""The runtimes by the names that each packaged model-settings.json has for them."""

from .adapter.runtimes import SvmModel, TreesModel

__all__ = ["SvmModel", "TreesModel"]
