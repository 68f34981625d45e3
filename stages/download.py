"""Fetch the data set's four files, or make them from the digits that scikit-learn bundles.

Reads   the folder or base URL in the variable FASHION_MNIST_SOURCE, then download.sources; the
        forms of the files are those of data/forms.py
Writes  data/raw/*.gz      four gzipped IDX files, named as those of Fashion-MNIST
Params  download
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.download")

import os

from stages.console import StageError, run
from stages.data.idx import RAW, TEST_FILES, TRAIN_FILES, write_idx
from stages.data.sources import File, fetch
from stages.params import MIN_CLASSES, Download, load_params

SOURCE_VARIABLE = "FASHION_MNIST_SOURCE"
REMEDY = (
    f"Set {SOURCE_VARIABLE} to a folder or base URL that holds the four files, or try the pipeline "
    "without: make demo; for other images, set download.dataset to own"
)
CUSTOM_REMEDY = "Name one that does in download.sources"

# Of what the published files hold, unpacked; the data set's README has those of the packed files.
MD5 = (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
)


def files_of(params: Download) -> list[File]:
    """The files that a data set is made of."""
    names = (*TRAIN_FILES, *TEST_FILES)
    if params.dataset != "own":
        return [File(name, name, md5) for name, md5 in zip(names, MD5, strict=True)]
    sums = params.own.md5 or (None,) * len(names)
    return [File(*of) for of in zip(names, params.own.files, sums, strict=True)]


def main() -> None:
    params = load_params().download
    if len(params.class_names) < MIN_CLASSES:
        raise StageError(
            f"params.yaml: download.own.class_names is {params.own.class_names}; "
            f"expected the names of {MIN_CLASSES} classes or more, since download.dataset is own"
        )
    if params.dataset == "digits":
        # Here, since scikit-learn takes two seconds to load, for which other data need not wait.
        from stages.data.digits import make_digits  # noqa: PLC0415

        for files, content in zip((TRAIN_FILES, TEST_FILES), make_digits(), strict=True):
            write_idx(RAW / files[0], RAW / files[1], content)
        print("digits: made from the copy that scikit-learn bundles")
        return
    first = os.environ.get(SOURCE_VARIABLE) if params.dataset == "fashion-mnist" else None
    sources = [first, *params.sources] if first else params.sources
    for file in files_of(params):
        try:
            print(f"{file.name}: {fetch(file, sources, RAW)}")
        except StageError as error:
            remedy = CUSTOM_REMEDY if params.dataset == "own" else REMEDY
            raise StageError(f"{error}. {remedy}") from None


if __name__ == "__main__":
    run(main)
