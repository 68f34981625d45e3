"""The Open Inference Protocol (V2): bytes to requests, responses to bytes, over REST and gRPC."""
