"""Names, shapes and classes of requests, responses and packaged files, for training and serving.

Stages and tests import it as `serving.fashion.contract`, a server as `fashion.contract`.
"""

SIDE = 28
PIXELS = SIDE * SIDE
PIXEL_MAX = 255

INPUT_NAME = "predict"
# What a request may ask for: labels, which it gets unless it names something, probabilities of the
# classes, names of the classes that the labels stand for, and the pixels that the model saw.
OUTPUTS = LABELS, PROBABILITIES, CLASS_LABELS, IMAGES = "predict", "predict_proba", "label", "image"

CONFIDENCES = "confidence"  # not for clients: the probabilities of the labels

# What lies beside a model's own file: how it was trained, and is served (stages/training/saved.py);
# and, where the model has such inputs, the map from pixels to features, and to class scores.
TRAINING_FILE = "training.json"
FEATURES_FILE, SCORES_FILE = "features.npz", "scores.npz"

# Beside the models, in the folder models: images for the try-it page to choose from.
SAMPLES_FILE = "samples.json"

# By data set, in the order of the labels 0, 1, 2 …
# Source for fashion-mnist: the data set's README, section "Labels".
CLASS_NAMES = {
    "fashion-mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "digits": tuple("0123456789"),
}

# What the log says of a model that must not be loaded, before the reason.
NOT_SERVED = "{name} {version} is not served: "
