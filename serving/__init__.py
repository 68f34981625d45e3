"""What a server needs, and what asks one: this folder alone is a complete model repository."""
