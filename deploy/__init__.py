"""Where the packaged models run beyond this machine: an image, and manifests of clusters."""
