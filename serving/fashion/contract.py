"""What a request holds and what an answer means, stated once for training and serving.

Stages and tests import it as `serving.fashion.contract`, a server as `fashion.contract`.
"""

SIDE = 28
PIXELS = SIDE * SIDE
PIXEL_MAX = 255

INPUT_NAME = "predict"
LABELS, PROBABILITIES = "predict", "predict_proba"  # what a request may ask for

# What lies beside a model's own file: the map from pixels to features, and the temperature of its
# probabilities.
FEATURES_FILE, CALIBRATION_FILE = "features.npz", "calibration.json"

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
