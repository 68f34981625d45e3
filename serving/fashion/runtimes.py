"""The MLServer runtimes that this repository brings along."""

from mlserver_sklearn import SKLearnModel

from .svm import KernelClassifier


class KernelModel(SKLearnModel):
    """Serves a scikit-learn pipeline that ends in an SVC, by matrix products."""

    async def load(self) -> bool:
        """Load the pipeline as scikit-learn's runtime does, then take the arrays out of it."""
        loaded = await super().load()
        self._model: KernelClassifier = KernelClassifier(self._model)
        return loaded
