"""An Open Inference server for any model: requests, limits, batching, and both applications."""
