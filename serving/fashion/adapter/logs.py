"""MLServer's structured log, MLSERVER_USE_STRUCTURED_LOGGING=true: each line is JSON."""

import json
import logging

from mlserver.context import model_name_var, model_version_var
from mlserver.logging import ModelLoggerFormatter
from mlserver.logging import logger as mlserver_logger


class LogFormatter(ModelLoggerFormatter):
    """Encodes each record, stack included; MLServer does not escape quotes in texts."""

    def format(self, record: logging.LogRecord) -> str:
        if not self.use_structured_logging:
            return super().format(record)
        line = {
            "time": self.formatTime(record),
            "name": record.name,
            "level": record.levelname,
            "message": record.getMessage(),
            "model_name": model_name_var.get(""),
            "model_version": model_version_var.get(""),
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: value for name, value in line.items() if value})


def share_handlers() -> None:
    """Let uvicorn log by MLServer's handlers, where they are structured."""
    formatters = [handler.formatter for handler in mlserver_logger.handlers]
    if any(isinstance(f, LogFormatter) and f.use_structured_logging for f in formatters):
        for logger in map(logging.getLogger, ("uvicorn", "uvicorn.access")):
            if logger.handlers:  # that of access has some only where MLServer is to debug
                logger.handlers = list(mlserver_logger.handlers)
