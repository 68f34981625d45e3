"""Features and predictions from pixels, for training and serving."""
