"""The typed params.yaml: every value, its type and its range. No key has a default."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationInfo, create_model, field_validator

from serving.fashion.contract import CLASS_NAMES
from stages.console import StageError
from stages.data.strict_yaml import Section, read_strict, read_yaml

PARAMS = Path("params.yaml")
MOVED = {  # what versions before had elsewhere
    "scores": "xgboost.scores",
    "package.serving.sklearn": "package.serving",
    "package.serving.xgboost": "package.serving",
}
MIN_CLASSES, MAX_CLASSES = 2, 255  # the latter of labels in a byte

Form = TypeVar("Form", bound=Section)
Md5 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Version = Annotated[str, Field(pattern=r"^v[1-9][0-9]*$")]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Landmarks = Annotated[int, Field(ge=10, le=20_000)]
DictionarySize = Annotated[int, Field(ge=2, le=512)]


class CustomData(Section):
    """Any data set in IDX files of 28 × 28 grey images; ignored unless dataset is own."""

    class_names: list[Annotated[str, Field(min_length=1)]] = Field(max_length=MAX_CLASSES)
    files: list[str] = Field(min_length=4, max_length=4)
    md5: Annotated[list[Md5], Field(min_length=4, max_length=4)] | None
    first_label: int = Field(ge=0, le=MAX_CLASSES)
    transposed: bool

    @field_validator("class_names")
    @classmethod
    def _are_distinct(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("each name once")
        return names


class Download(Section):
    """What data/raw holds."""

    dataset: Literal["fashion-mnist", "digits", "own"]
    sources: list[str] = Field(min_length=1)
    own: CustomData

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by label, from 0."""
        return CLASS_NAMES.get(self.dataset) or tuple(self.own.class_names)

    @property
    def layout(self) -> tuple[int, bool]:
        """What the files call the first class, and whether they have images column by column."""
        return (self.own.first_label, self.own.transposed) if self.dataset == "own" else (0, False)


class Preprocess(Section):
    """Which images train and which evaluate; both choices keep the shares of the classes."""

    train_limit: Annotated[int, Field(ge=100)] | None
    validation: int = Field(ge=0, le=50_000)
    seed: Seed


class FeatureConfig(Section):
    """What the models see of an image; see serving/fashion/model/features.py."""

    kind: Literal["patches", "hog", "pixels"]
    cells: list[Literal[2, 4, 8, 16]] = Field(min_length=1)
    bins: int = Field(ge=2, le=72)
    pixel_weight: NotNegative
    directions: list[DictionarySize] = Field(min_length=2, max_length=2)
    components: Count | None


class ClassScores(Section):
    """Kernel ridge regression of the classes on the features; the trees see its scores."""

    landmarks: Landmarks | None
    gamma: Positive
    ridge: float = Field(ge=1e-9)
    folds: int = Field(ge=2, le=20)
    weight: Positive
    seed: Seed


class Svm(Section):
    """Support vector classifier on the features; the names are scikit-learn's (SVC)."""

    approximation: Landmarks | None
    kernel: Literal["linear", "poly", "rbf", "sigmoid"]
    C: Positive
    gamma: Literal["scale", "auto"] | Positive
    degree: int = Field(ge=1, le=20)
    coef0: float
    tol: float = Field(gt=0, lt=1)


class Xgboost(Section):
    """Boosted trees on the features; the names are XGBoost's (XGBClassifier)."""

    engine: Literal["local", "dask"]
    scheduler: Annotated[str, Field(pattern=r"^(tcp|tls)://.+:[0-9]+$")] | None
    device: Literal["cpu", "cuda"]
    components: Count
    n_estimators: int = Field(ge=1, le=100_000)
    early_stopping_rounds: Count | None
    learning_rate: Share
    max_depth: int = Field(ge=1, le=30)
    max_bin: int = Field(ge=2, le=1024)
    min_child_weight: NotNegative
    reg_lambda: NotNegative
    subsample: Share
    colsample_bytree: Share
    colsample_bynode: Share
    seed: Seed
    scores: ClassScores


class Calibration(Section):
    """Images that a trial model goes without, at most a fifth of all, to calibrate models on."""

    held_out: int = Field(ge=20)
    seed: Seed


class Serving(Section):
    """How the server computes, for each model, which changes no response."""

    max_batch_delay_ms: float = Field(ge=0, le=1000)
    rows_per_thread: int = Field(ge=1, le=10_000)


class Limits(Section):
    """What the server accepts at once; beyond it, requests are rejected with 413, 408 or 503."""

    body_mb: int = Field(ge=1, le=1024)
    bodies_mb: int = Field(ge=1, le=65_536)
    request_seconds: float = Field(ge=1, le=3600)
    waiting: int = Field(ge=1, le=1_000_000)


class Package(Section):
    """What is served."""

    version: Version
    previous: dict[Version, str]
    max_rows: int = Field(ge=1, le=1_000_000)
    limits: Limits
    serving: Serving

    @field_validator("previous")
    @classmethod
    def _are_earlier(cls, previous: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if info.data.get("version") in previous:
            raise ValueError("earlier versions than package.version")
        return previous


class Evaluate(Section):
    """How the served models are measured."""

    batch_size: int = Field(ge=1, le=10_000)
    min_accuracy: float = Field(ge=0, le=1)


class Params(Section):
    """All of params.yaml, whose comments explain each key."""

    threads: int = Field(ge=1, le=1024)
    download: Download
    preprocess: Preprocess
    features: FeatureConfig
    svm: Svm
    xgboost: Xgboost
    calibration: Calibration
    package: Package
    evaluate: Evaluate

    def section(self, form: type[Form]) -> Form:
        """The section that a stage describes in its file, by the name of its class."""
        return form.model_validate(getattr(self, _section(form)).model_dump())


def load_params(path: Path = PARAMS) -> Params:
    """Read and check params.yaml. Raises StageError, a line for each wrong key.

    Params of a stage train_* of dvc.yaml that are not described here are described in its file:
    random_forest by `class RandomForest(Section)`.
    """
    added: dict[str, Any] = {name: (form, ...) for name, form in _sections_of_stages(path.parent)}
    return read_strict(path, create_model("Params", __base__=Params, **added), MOVED)


def _sections_of_stages(folder: Path) -> Iterator[tuple[str, type[Section]]]:
    pipeline = folder / "dvc.yaml"
    stages = read_yaml(pipeline)["stages"] if pipeline.exists() else {}
    for stage in filter(re.compile("train_").match, stages):
        params = (key for key in stages[stage].get("params", []) if isinstance(key, str))
        for name in {key.split(".")[0] for key in params} - set(Params.model_fields):
            described = vars(import_module(f"stages.{stage}")).values()
            form = next((form for form in described if _section(form) == name), None)
            if not form:
                raise StageError(
                    f"{pipeline}: {stage} has params {name}, which stages/{stage}.py does not "
                    f"describe; expected class {name.title().replace('_', '')}(Section) there"
                )
            yield name, form


def _section(form: Any) -> str:
    """The section of params.yaml that a class describes: random_forest for RandomForest."""
    is_section = isinstance(form, type) and issubclass(form, Section)
    return re.sub("(?<!^)(?=[A-Z])", "_", form.__name__).lower() if is_section else ""
