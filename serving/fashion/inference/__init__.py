"""An Open Inference server for any model."""

import logging

logger = logging.getLogger("inference")
