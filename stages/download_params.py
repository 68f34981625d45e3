"""The section `download` of params.yaml: which data set, and what one's own is like."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from serving.fashion.contract import CLASS_NAMES
from stages.closed_yaml import Section

MIN_CLASSES, MAX_CLASSES = 2, 255  # the latter of labels in a byte
Md5 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class OwnData(Section):
    """Any data set in IDX files of 28 × 28 grey images; of no effect unless dataset is own.

    class_names: by label, first_label first; files: as the sources name them, images and labels
    that train, images and labels that test, gzipped; md5: of each, in that order, or null to take
    what comes; first_label: of the labels in the files; transposed: their images stand
    column by column, as those of EMNIST.
    """

    class_names: list[Annotated[str, Field(min_length=1)]] = Field(
        max_length=MAX_CLASSES, description=f"a list of names, each once, at most {MAX_CLASSES}"
    )
    files: tuple[str, str, str, str] = Field(description="a list of four file names")
    md5: tuple[Md5, Md5, Md5, Md5] | None = Field(
        description="null or a list of four MD5 sums, 32 hexadecimal digits each"
    )
    first_label: int = Field(
        ge=0, le=MAX_CLASSES, description=f"a whole number from 0 to {MAX_CLASSES}"
    )
    transposed: bool = Field(description="true or false")

    @field_validator("files", "md5", mode="before")
    @classmethod
    def _is_tuple(cls, values: object) -> object:
        return tuple(values) if isinstance(values, list) else values

    @field_validator("class_names")
    @classmethod
    def _are_unlike(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a name twice")
        return names


class Download(Section):
    """What data/raw holds.

    dataset: digits is bundled with scikit-learn, own is what the section of that name describes;
    sources: base URLs or folders, tried in this order.
    """

    dataset: Literal["fashion-mnist", "digits", "own"] = Field(
        description="one of fashion-mnist, digits, own"
    )
    sources: list[str] = Field(min_length=1, description="a list of base URLs or folders")
    own: OwnData

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by label, from 0."""
        return CLASS_NAMES.get(self.dataset) or tuple(self.own.class_names)

    @property
    def first_label(self) -> int:
        """What the files call the first class."""
        return self.own.first_label if self.dataset == "own" else 0

    @property
    def transposed(self) -> bool:
        """Whether the files have images column by column."""
        return self.own.transposed if self.dataset == "own" else False
