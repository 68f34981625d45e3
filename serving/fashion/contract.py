"""Names, shapes and classes of requests, responses and packaged files, for training and serving.

Stages and tests import it as `serving.fashion.contract`, a server as `fashion.contract`.
"""

SIDE = 28
PIXELS = SIDE * SIDE
PIXEL_MAX = 255

INPUT_NAME = "predict"
# Outputs: labels, the default, probabilities of the classes, the class names of the labels, and the
# pixels that the model classified.
OUTPUTS = LABELS, PROBABILITIES, CLASS_LABELS, IMAGES = "predict", "predict_proba", "label", "image"

CONFIDENCES = "confidence"  # internal: the probabilities of the labels

# Other files of a model's folder: how it was trained, and is served (stages/training/saved.py);
# the maps from pixels to features, and to class scores, for a model that has such inputs.
TRAINING_FILE = "training.json"
FEATURES_FILE, SCORES_FILE = "features.npz", "scores.npz"

# In the folder models: images for the try-it page to choose from.
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

# Begins the line of the log for a model that must not be loaded, before the reason.
NOT_SERVED = "{name} {version} is not served: "
