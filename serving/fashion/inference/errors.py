"""Errors of requests: one short message for the client."""

from http import HTTPStatus

QUOTED = 60  # characters of a client's value that a message quotes
LONGEST = 500  # characters of a message
RETRY_SECONDS = 1  # after which to send a request to a busy server again


class RequestError(ValueError):
    """A request that is rejected. message: for the client, one line; status: of HTTP."""

    def __init__(self, message: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message if len(message) <= LONGEST else f"{message[: LONGEST - 1]}…")
        self.status = status


def quote(value: object) -> str:
    """A client's value for a message: as it is if that is one short line."""
    text = str(value)
    if text.isprintable() and 0 < len(text) <= QUOTED:
        return text
    return f"{text[:QUOTED]!r}" + ("…" if len(text) > QUOTED else "")


def one_line(text: object) -> str:
    """The text, with characters escaped that would begin a new line, or be invisible."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))
