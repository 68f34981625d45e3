"""The facts and the code that ship inside the server."""
