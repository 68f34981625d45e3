"""The runtimes by the names that each packaged model-settings.json has for them."""

from .adapter.runtimes import ScikitLearnModel, XgboostModel

SvmModel, TreesModel = ScikitLearnModel, XgboostModel  # as versions packaged before name them

__all__ = ["ScikitLearnModel", "SvmModel", "TreesModel", "XgboostModel"]
