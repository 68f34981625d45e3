"""The runtime by the names that each packaged model-settings.json has for it."""

from .adapter.runtimes import FashionModel

ScikitLearnModel = XgboostModel = FashionModel
SvmModel = TreesModel = FashionModel  # as versions packaged before name it
