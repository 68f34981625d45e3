"""Whether a server could listen on a port. Needs nothing but Python, as health.py does."""

import socket


def refusal(host: str, port: int, variable: str) -> str:
    """Why a port cannot be had, and what to do; empty if it can. variable: names another port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            return (
                f"port {port} of {host}: {getattr(error, 'strerror', None) or error}; "
                f"stop what listens there, or choose another: {variable}=…"
            )
    return ""
