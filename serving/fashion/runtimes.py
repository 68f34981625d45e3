"""The MLServer runtimes of both models: the stock ones, asked for pictures of clothes."""

import gc
import json
import multiprocessing
from asyncio import to_thread
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mlserver.errors import MLServerError
from mlserver.logging import logger
from mlserver.model import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, Parameters
from mlserver.utils import get_model_uri
from mlserver_sklearn import SKLearnModel
from mlserver_xgboost import XGBoostModel

from .batching import Batcher
from .classifiers import Classifier, SvmClassifier, TreesClassifier
from .contract import CLASS_LABELS, IMAGES, LABELS, NOT_SERVED
from .features import CHUNK
from .integrity import STRICT, UnfitModelError, check_files, check_libraries
from .tensors import Asked, is_small, read_images, read_outputs, write_outputs


class FromPixels(MLModel):
    """Puts the contract (tensors.py) before a stock runtime, and before its loading the checks."""

    classifier: ClassVar[type[Classifier]]

    async def load(self) -> bool:
        """Load the model as the stock runtime does, then what lies beside its file.

        False, with a line in the log, where its files are not those that were packaged or a library
        does not fit. An error instead where a request asked for it, and in a worker process of
        MLServer, which asks for no answer.
        """
        # MLServer's own batching, if it is configured, joins requests before anything checked them.
        self.__dict__.pop("predict", None)
        extra = self._extra
        try:
            folder = Path(await get_model_uri(self.settings)).parent
            check_files(folder, extra["sha256"])
            warnings = check_libraries(extra["libraries"])
        except (UnfitModelError, MLServerError) as error:
            if STRICT.get() or multiprocessing.parent_process():
                raise
            logger.error(NOT_SERVED.format(name=self.name, version=self.version) + str(error))
            return False
        for warning in warnings:
            logger.warning(f"{self.name} {self.version}: {warning}; results may differ slightly")
        await super().load()
        names = np.array(extra["class_names"])
        chosen = extra.get("serving", {})  # which a version packaged long ago has not
        classify = self.classifier(self._model, folder, chosen.get("chunk_rows", CHUNK)).answer

        def answer(images: np.ndarray) -> dict[str, np.ndarray]:
            answers = classify(images)
            return answers | {CLASS_LABELS: names[answers[LABELS]], IMAGES: images}

        self._batcher = Batcher(answer, extra["max_rows"], chosen.get("wait_ms", 0.0))
        # What lives as long as the server need not be searched for garbage, time and again: that
        # took a third of a request's time.
        gc.collect()
        gc.freeze()
        return True

    async def unload(self) -> bool:
        """Let go of the thread that computes."""
        if hasattr(self, "_batcher"):
            self._batcher.close()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request. Raises InferenceError for what the contract refuses."""
        outputs = write_outputs(await self.answer(payload))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)

    async def answer(self, asked: Asked) -> list[tuple[str, np.ndarray]]:
        """What is asked for, by name, as arrays. Raises InferenceError likewise."""
        names = read_outputs(asked)
        given = asked, self._extra["max_rows"]
        images = read_images(*given) if is_small(asked) else await to_thread(read_images, *given)
        answers = await self._batcher(images)
        return [(name, answers[name]) for name in names]

    async def metadata(self) -> MetadataModelResponse:
        """What MLServer tells of a model, and of this one: classes, training, versions, checksums.

        As text, in JSON where it has parts, which both protocols can carry.
        """
        told = await super().metadata()
        told.parameters = Parameters(
            **{
                name: value if isinstance(value, str | int) else json.dumps(value)
                for name, value in self._extra.items()
            }
        )
        return told

    @property
    def _extra(self) -> dict[str, Any]:
        assert self.settings.parameters is not None
        return self.settings.parameters.extra or {}


class SvmModel(FromPixels, SKLearnModel):
    """Serves a scikit-learn SVC, or the pipeline that approximates one."""

    classifier = SvmClassifier


class TreesModel(FromPixels, XGBoostModel):
    """Serves an XGBClassifier."""

    classifier = TreesClassifier
