"""The MLServer runtimes of both models: the stock ones, asked for raw pixels."""

from pathlib import Path
from typing import ClassVar

from mlserver.codecs import NumpyCodec, NumpyRequestCodec
from mlserver.errors import InferenceError
from mlserver.model import MLModel
from mlserver.types import InferenceRequest, ResponseOutput
from mlserver.utils import get_model_uri
from mlserver_sklearn import SKLearnModel
from mlserver_xgboost import XGBoostModel

from .classifiers import Classifier, SvmClassifier, TreesClassifier
from .features import PixelError


class FromPixels(MLModel):
    """Puts between a stock runtime and its model what turns pixels into the model's features."""

    classifier: ClassVar[type[Classifier]]

    async def load(self) -> bool:
        """Load the model as the stock runtime does, then what lies beside its file."""
        loaded = await super().load()
        folder = Path(await get_model_uri(self.settings)).parent
        self._model: Classifier = self.classifier(self._model, folder)
        return loaded

    def _get_model_outputs(self, payload: InferenceRequest) -> list[ResponseOutput]:
        """What a stock runtime calls to answer; here, one pass over the images answers it all."""
        images = self.decode_request(payload, default_codec=NumpyRequestCodec)
        try:
            answers = self._model.answer(images)
        except PixelError as error:
            raise InferenceError(str(error)) from None
        asked = payload.outputs or []
        unknown = [output.name for output in asked if output.name not in answers]
        if unknown:
            raise InferenceError(f"expected outputs out of {', '.join(answers)}, got {unknown[0]}")
        return [self.encode(answers[o.name], o, default_codec=NumpyCodec) for o in asked]


class SvmModel(FromPixels, SKLearnModel):
    """Serves a scikit-learn SVC."""

    classifier = SvmClassifier


class TreesModel(FromPixels, XGBoostModel):
    """Serves an XGBClassifier."""

    classifier = TreesClassifier
