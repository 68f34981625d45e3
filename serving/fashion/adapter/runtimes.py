"""The MLServer runtime of this project's models, which inference/ serves."""

import asyncio
import gc
import json
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import msgspec
from mlserver.errors import MLServerError
from mlserver.logging import logger
from mlserver.model import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, Parameters
from mlserver.utils import get_model_uri

from ..inference.batching import Batcher
from ..inference.errors import RequestError, one_line
from ..inference.handler import ServedModel
from ..inference.limits import Limits
from ..inference.metrics import ModelMetrics
from ..integrity import RAISE_IF_UNFIT, UnfitModelError, check_files, check_libraries
from ..model.classifiers import load_classifier
from ..model.features import ROWS_PER_THREAD
from ..model.predictor import FashionPredictor
from .foreign import NO_LIMITS, extra_settings
from .options import OPTIONS
from .payloads import from_payload, to_response

# Objects and collections; requests leave hardly any cycles.
GC_THRESHOLD = 20_000, 20, 20
SETTLE_SECONDS = 1.0  # after which the last requests of an unloaded model have ended


class PackagedSettings(msgspec.Struct):
    """The object parameters.extra of model-settings.json, which `package` writes.

    sha256: of each file; class_names: by label; libraries: that trained, with their versions;
    max_rows: images a request; serving: see params.yaml, package.serving.
    """

    sha256: dict[str, str]
    class_names: list[str]
    libraries: dict[str, str]
    max_rows: Annotated[int, msgspec.Meta(ge=1)]
    limits: Limits = NO_LIMITS
    serving: dict[str, float] = {}


class FashionModel(MLModel):
    """Loads a model from its folder, after checking the files; inference/ serves it."""

    served: ServedModel | None = None

    async def load(self) -> bool:
        """Load the files of the model's folder.

        Raises UnfitModelError where they are not those that were packaged or a library does not
        fit.
        """
        OPTIONS.check_hosts()
        # MLServer's adaptive batching, if it is configured, sets this attribute.
        self.__dict__.pop("predict", None)
        self.metrics = ModelMetrics(self.name, self.version or "")
        try:
            settings = msgspec.convert(extra_settings(self.settings), PackagedSettings)
            read = partial(self._read, Path(await get_model_uri(self.settings)), settings)
            # A request loads it in a thread, since others are served meanwhile.
            self.served = await asyncio.to_thread(read) if RAISE_IF_UNFIT.get() else read()
        except UnfitModelError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}; package it again"
            raise UnfitModelError(reason) from None
        settle()
        return True

    def _read(self, path: Path, settings: PackagedSettings) -> ServedModel:
        check_files(path.parent, settings.sha256)
        for warning in check_libraries(settings.libraries):
            logger.warning(f"{self.name} {self.version}: {warning}; results may differ")
        name, version, serving = self.name, self.version or "", settings.serving
        rows_per_thread = serving.get("rows_per_thread", serving.get("chunk_rows", ROWS_PER_THREAD))
        delay = serving.get("max_batch_delay_ms", serving.get("wait_ms", 0.0))
        classifier = load_classifier(path, int(rows_per_thread))
        names, rows, limits = settings.class_names, settings.max_rows, settings.limits
        predictor = FashionPredictor(classifier, names, rows, name, version)
        predict = self.metrics.counted(predictor)
        batcher = Batcher(predictor, predict, rows, delay, limits.waiting)
        return ServedModel(name, version, predictor, limits, batcher)

    async def unload(self) -> bool:
        """Free its memory, once its last requests have responses."""
        asyncio.get_running_loop().call_later(SETTLE_SECONDS, settle)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Called by MLServer's servers. Raises MLServerError."""
        if self.served is None:
            raise MLServerError(f"Model {self.name} is not ready yet.", HTTPStatus.BAD_REQUEST)
        signature, request = self.served.signature, from_payload(payload)
        try:
            outputs = signature.check_outputs(request)
            results = await self.served.infer(signature.decode(request))
        except RequestError as error:
            raise MLServerError(str(error), error.status) from None
        encoded = signature.encode(results, outputs)
        return to_response(encoded, self.name, self.version, payload.id)

    async def metadata(self) -> MetadataModelResponse:
        """MLServer's metadata, with what was packaged: classes, training, checksums.

        Objects as text in JSON, which both protocols can carry.
        """
        metadata = await super().metadata()
        metadata.parameters = Parameters(
            **{
                name: value if isinstance(value, str | int) else json.dumps(value)
                for name, value in extra_settings(self.settings).items()
            }
        )
        return metadata


def settle() -> None:
    """Collect garbage, and exclude the rest, which lives as long as the server, from collections.

    These took a third of a request's time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
