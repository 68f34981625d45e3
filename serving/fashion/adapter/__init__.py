"""All that knows MLServer."""
