"""A complete model repository with its server's code, the client, and a launcher."""
