"""What the training stages fit: features, class scores, the SVM, trees, calibration."""
