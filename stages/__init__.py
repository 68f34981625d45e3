"""The six stages of dvc.yaml, one module each; run one as `python -m stages.<name>`."""
