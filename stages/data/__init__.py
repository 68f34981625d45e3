"""The data set's files, arrays on disk, and choices of images."""
