"""Models that are none of this project's, as others put them into an MLServer repository."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

SKLEARN, XGBOOST = "mlserver_sklearn.SKLearnModel", "mlserver_xgboost.XGBoostModel"
COLUMNS = [
    {"name": "size", "datatype": "FP64", "shape": [-1]},
    {"name": "colour", "datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "str"}},
]
RUNTIMES = '''
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import MLServerError
from mlserver.types import InferenceResponse, Parameters


class Echo(MLModel):
    async def predict(self, payload):
        texts = [text.upper() for text in StringCodec.decode_input(payload.inputs[0])]
        output = StringCodec.encode_output("echo", texts)
        header = (payload.parameters.headers or {}).get("x-tenant", "")
        return InferenceResponse(
            model_name=self.name, parameters=Parameters(tenant=header), outputs=[output]
        )


class Moody(MLModel):
    """Does what the only number of a request says."""

    async def predict(self, payload):
        number = int(NumpyCodec.decode_input(payload.inputs[0]).ravel()[0])
        if number == 0:
            raise KeyError("a column\\nof two lines" + "x" * 1000)
        if number == 1:
            raise MLServerError("out of stock", 422)
'''


def _put(folder: Path, name: str, implementation: str, file: str, **more: Any) -> Path:
    target = folder / name
    target.mkdir()
    parameters = {"uri": f"./{file}", "version": "v1"} | more.pop("parameters", {})
    settings = {"name": name, "implementation": implementation, "parameters": parameters} | more
    (target / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return target / file


def add_models(folder: Path) -> None:
    """Put models into a repository: iris, table, batched, columns, price, species; echo, moody."""
    x, y = load_iris(return_X_y=True)
    iris = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    declared: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 4]}]}
    joblib.dump(iris, _put(folder, "iris", SKLEARN, "m.joblib", **declared))
    joblib.dump(iris, _put(folder, "table", SKLEARN, "m.joblib"))
    batched = {"max_batch_size": 64, "max_batch_time": 0.01}
    joblib.dump(iris, _put(folder, "batched", SKLEARN, "m.joblib", **batched))
    frame = pd.DataFrame(
        {"size": x[:, 0], "colour": np.where(x[:, 1] > 3, "dark red", "light blue")}
    )
    by_name = make_column_transformer((OneHotEncoder(), ["colour"]), (StandardScaler(), ["size"]))
    columns = make_pipeline(by_name, LogisticRegression()).fit(frame, y)
    parameters = {"content_type": "pd"}
    path = _put(folder, "columns", SKLEARN, "m.joblib", inputs=COLUMNS, parameters=parameters)
    joblib.dump(columns, path)
    names = load_iris().target_names[y]
    joblib.dump(
        LogisticRegression(max_iter=1000).fit(x, names),
        _put(folder, "species", SKLEARN, "m.joblib"),
    )
    regressor = xgboost.XGBRegressor(n_estimators=3).fit(x, x[:, 0] * 2)
    regressor.save_model(_put(folder, "price", XGBOOST, "m.json"))
    (folder / "own_runtimes.py").write_text(RUNTIMES, encoding="utf-8")
    for name, kind in (("echo", "Echo"), ("moody", "Moody")):
        (folder / name).mkdir()
        settings = {"name": name, "implementation": f"own_runtimes.{kind}"}
        (folder / name / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
