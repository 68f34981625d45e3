"""The typed, closed form of params.yaml: every value, its type and its range.

Those of `download` stand in stages/download_params.py.

There are no defaults: params.yaml holds each value, and a key it lacks is an error.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.closed_yaml import Section, read_closed
from stages.download_params import Download

PARAMS = Path("params.yaml")

Fraction = Field(gt=0, le=1, description="a number above 0, at most 1")
VERSION = r"^v[1-9][0-9]*$"
IMAGE = r"^([a-z0-9.-]+(:[0-9]+)?/)?[a-z0-9][a-z0-9._/-]*[a-z0-9]$"
STORAGE = r"^(s3|gs|pvc|https?)://\S*[^/\s]$"
SCHEDULER = r"^(tcp|tls)://.+:[0-9]+$"
MEMORY = r"^[1-9][0-9]*[MG]i$"
Seed = Field(ge=0, le=2**31 - 1, description="a whole number from 0 to 2147483647")


class Preprocess(Section):
    """Which images train and which evaluate; both choices keep the shares of the classes.

    train_limit: null for all training images, or how many of them; validation: 0 to evaluate on
    the test files, or how many images to hold out of the training files and evaluate on instead.
    """

    train_limit: int | None = Field(ge=100, description="null or a whole number from 100")
    validation: int = Field(
        ge=0, le=50_000, description="0 (test files) or a whole number to 50000"
    )
    seed: int = Seed


class Features(Section):
    """What the models see of an image; see serving/fashion/features.py.

    kind: hog, histograms of gradients and means of pixels, or pixels alone, to which nothing below
    applies; cells: sides of the histograms' cells, in pixels, a set of histograms each; bins:
    directions of a histogram; pixel_weight: of the means of pixels, as 0 to 1, beside the
    histograms; components: principal components kept, at most as many as there are images, or null
    for all descriptors as they are.
    """

    kind: Literal["hog", "pixels"] = Field(description="one of hog, pixels")
    cells: list[Literal[2, 4, 8, 16]] = Field(min_length=1, description="a list out of 2, 4, 8, 16")
    bins: int = Field(ge=2, le=72, description="a whole number from 2 to 72")
    pixel_weight: float = Field(ge=0, description="a number from 0")
    components: int | None = Field(ge=1, description="null or a whole number from 1")


class ClassScores(Section):
    """Kernel ridge regression of the classes, whose scores are the first of the features.

    landmarks: training images that the kernel compares with, at most as many as there are, or null
    for no scores; gamma: kernel width, as of svm; ridge: of the regression; folds: into which the
    training images are cut, so that none is scored by a regression that knew its label; weight:
    of the scores, beside other features whose variances add up to 1.
    """

    landmarks: int | None = Field(
        ge=10, le=20_000, description="null or a whole number from 10 to 20000"
    )
    gamma: float = Field(gt=0, description="a number above 0")
    ridge: float = Field(ge=1e-9, description="a number from 1e-9")
    folds: int = Field(ge=2, le=20, description="a whole number from 2 to 20")
    weight: float = Field(gt=0, description="a number above 0")
    seed: int = Seed


class Svm(Section):
    """Support vector classifier on the features; the names are scikit-learn's (SVC).

    device: cuda fits it by cuML on a GPU; approximation: null to fit it exactly, in time that grows
    with the square of the images, or how many landmarks, at most as many as there are images, to
    approximate it with, in time linear in the images and square in the landmarks (nystroem.py); C:
    inverse of the regularisation; gamma: kernel width, for rbf, poly and sigmoid, where two images
    are a squared distance of about 2 apart on average; degree: of poly; coef0: for poly and
    sigmoid; tol: of the stopping criterion, of no effect on the approximation.
    """

    device: Literal["cpu", "cuda"] = Field(description="one of cpu, cuda")
    approximation: int | None = Field(
        ge=10, le=20_000, description="null or a whole number from 10 to 20000"
    )
    kernel: Literal["linear", "poly", "rbf", "sigmoid"] = Field(
        description="one of linear, poly, rbf, sigmoid"
    )
    C: float = Field(gt=0, description="a number above 0")
    gamma: Literal["scale", "auto"] | Annotated[float, Field(gt=0)] = Field(
        description="scale, auto or a number above 0"
    )
    degree: int = Field(ge=1, le=20, description="a whole number from 1 to 20")
    coef0: float = Field(description="a number")
    tol: float = Field(gt=0, lt=1, description="a number above 0, below 1")


class Xgboost(Section):
    """Boosted trees on the features; the names are XGBoost's (XGBClassifier).

    engine: local boosts in memory, external on batches from disk, dask on workers elsewhere;
    scheduler: of Dask, or null to start a cluster of two workers on this machine; columns: how many
    features the trees see, the class scores first; n_estimators: boosting
    rounds, one tree a class each, at most; early_stopping_rounds: without a lower log loss on
    held-out images, after which boosting stops, or null to boost n_estimators rounds; max_bin:
    histogram bins a feature; colsample_bytree, colsample_bynode, subsample: shares of features and
    images drawn.
    """

    engine: Literal["local", "external", "dask"] = Field(description="one of local, external, dask")
    scheduler: str | None = Field(pattern=SCHEDULER, description="null or tcp://host:port")
    device: Literal["cpu", "cuda"] = Field(description="one of cpu, cuda")
    columns: int = Field(ge=1, description="a whole number from 1")
    n_estimators: int = Field(ge=1, le=100_000, description="a whole number from 1 to 100000")
    early_stopping_rounds: int | None = Field(ge=1, description="null or a whole number from 1")
    learning_rate: float = Fraction
    max_depth: int = Field(ge=1, le=30, description="a whole number from 1 to 30")
    max_bin: int = Field(ge=2, le=1024, description="a whole number from 2 to 1024")
    min_child_weight: float = Field(ge=0, description="a number from 0")
    reg_lambda: float = Field(ge=0, description="a number from 0")
    subsample: float = Fraction
    colsample_bytree: float = Fraction
    colsample_bynode: float = Fraction
    seed: int = Seed


class Calibration(Section):
    """Training images on which a trial model tells how sure the final one may be.

    held_out: how many, at most a fifth of all; the final model is trained on all of them.
    """

    held_out: int = Field(ge=20, description="a whole number from 20")
    seed: int = Seed


class Serving(Section):
    """How a model's server computes, which changes no answer.

    max_batch_delay_ms: to wait for more requests where some wait already; rows_per_thread: images
    that a thread takes.
    """

    max_batch_delay_ms: float = Field(ge=0, le=1000, description="a number from 0 to 1000")
    rows_per_thread: int = Field(ge=1, le=10_000, description="a whole number from 1 to 10000")


class ServingOfModels(Section):
    """By the name of the stage that trains the model."""

    sklearn: Serving
    xgboost: Serving


class Limits(Section):
    """What the server takes on at once; beyond it, requests are rejected with 413, 408 or 503.

    body_mb: MiB of a request's body; bodies_mb: MiB of all bodies in hand; request_seconds: for a
    request to arrive whole; waiting: requests that wait for a model.
    """

    body_mb: int = Field(ge=1, le=1024, description="a whole number from 1 to 1024")
    bodies_mb: int = Field(ge=1, le=65_536, description="a whole number from 1 to 65536")
    request_seconds: float = Field(ge=1, le=3600, description="a number from 1 to 3600")
    waiting: int = Field(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")


class Package(Section):
    """What is served.

    version: of both models as trained now, part of their URLs; previous: earlier versions that are
    served beside it, by the git revision that packaged each; max_rows: images a request; limits:
    what the server takes on; serving: how both models compute.
    """

    version: str = Field(pattern=VERSION, description="v1, v2, v3 …")
    previous: dict[Annotated[str, Field(pattern=VERSION)], str] = Field(
        description="earlier versions and git revisions, as {v1: 3f2c1ab}"
    )
    max_rows: int = Field(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")
    limits: Limits
    serving: ServingOfModels

    @field_validator("previous")
    @classmethod
    def _are_earlier(cls, previous: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if info.data.get("version") in previous:
            raise ValueError("the version of now")
        return dict(sorted(previous.items(), key=lambda item: int(item[0][1:])))


class Evaluate(Section):
    """batch_size: images a request; min_accuracy: below it, the stage fails."""

    batch_size: int = Field(ge=1, le=10_000, description="a whole number from 1 to 10000")
    min_accuracy: float = Field(ge=0, le=1, description="a number from 0 to 1")


class Deploy(Section):
    """The manifests of deploy/, which no stage reads.

    image: without its tag, which is package.version; storage: the URL of a copy of serving/;
    canary_percent: of requests, to package.version beside the newest of package.previous;
    replicas: fewest and most; requests_per_second: of a replica, above which another is started;
    cpu: cores of a replica; memory: requested and at most, as Kubernetes writes it.
    """

    image: str = Field(pattern=IMAGE, description="an image's name without a tag")
    storage: str = Field(pattern=STORAGE, description="a URL that KServe and rclone can read")
    canary_percent: int = Field(ge=0, le=100, description="a whole number from 0 to 100")
    replicas: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] = Field(
        description="the fewest and the most, as [1, 4]"
    )
    requests_per_second: int = Field(ge=1, description="a whole number from 1")
    cpu: float = Field(gt=0, description="a number above 0")
    memory: tuple[Annotated[str, Field(pattern=MEMORY)], Annotated[str, Field(pattern=MEMORY)]] = (
        Field(description="requested and at most, as [768Mi, 1536Mi]")
    )

    @field_validator("replicas", "memory", mode="before")
    @classmethod
    def _is_pair(cls, pair: object) -> object:
        return tuple(pair) if isinstance(pair, list) else pair

    @field_validator("replicas")
    @classmethod
    def _is_range(cls, replicas: tuple[int, int]) -> tuple[int, int]:
        if replicas[0] > replicas[1]:
            raise ValueError("fewer at most than at least")
        return replicas


class Params(Section):
    """All of params.yaml."""

    download: Download
    preprocess: Preprocess
    features: Features
    scores: ClassScores
    svm: Svm
    xgboost: Xgboost
    calibration: Calibration
    package: Package
    evaluate: Evaluate
    deploy: Deploy


def load_params(path: Path = PARAMS) -> Params:
    """Read and check params.yaml. Raises StageError, a line for each wrong key."""
    return read_closed(path, Params)
