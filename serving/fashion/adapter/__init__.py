"""All that knows MLServer, uvicorn and grpc.aio."""
