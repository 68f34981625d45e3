"""What the served models are checked and measured by, and the files that DVC plots."""
