"""Logging: structlog events and the standard library's records in one stream of one form.

Every line has an ISO 8601 UTC timestamp, a level, the logger's name and, inside an operation, its
id as `op` (bind it with `structlog.contextvars`). Secrets are removed by key name and by shape.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_REDACTED = "[redacted]"
_SECRET_WORDS = frozenset(
    {"password", "passwd", "pass", "token", "secret", "auth", "authorization", "credential", "credentials",
     "cookie", "bearer", "apikey", "identitytoken", "registrytoken"}
)  # fmt: skip
_PLACE_WORDS = frozenset({"file", "path", "kind", "type", "realm", "seconds", "bytes"})
_WORD_BREAK = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_SECRET_SHAPES = (
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {_REDACTED}"),
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+@"), f"{_REDACTED}@"),
    (
        re.compile(
            r"([?&][^=&\s]*(?:token|secret|password|signature|credential)[^=&\s]*=)[^&\s\"']+", re.IGNORECASE
        ),
        rf"\1{_REDACTED}",
    ),
)
_DEPTH_LIMIT = 8

# Libraries whose debug output holds headers, so credentials, or a line per frame.
_QUIET = {"h2": logging.WARNING, "hpack": logging.WARNING, "urllib3": logging.INFO, "grpclib": logging.INFO}


class _Logger(structlog.stdlib.BoundLogger):
    """Spends nothing on debug events that nobody wants: there are several in each call."""

    def debug(self, event: str | None = None, *args: Any, **kw: Any) -> Any:
        return super().debug(event, *args, **kw) if self._logger.isEnabledFor(logging.DEBUG) else None


def setup(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Set up logging of the whole process. Call it once at start; again replaces the set-up.

    Args:
        level: debug, info, warning or error; see `set_level` to change it later.
        form: `console`, `json` or `auto` (console when the stream is a terminal).
        stream: None = standard error.
    """
    target = sys.stderr if stream is None else stream
    console = form == "console" or (form == "auto" and target.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=_Logger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # Tracebacks with local variables would print what redaction cannot see.
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer(
                    colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
                )
                if console
                else structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
            ],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.raiseExceptions = False  # a closed standard error must not add tracebacks to itself
    logging.captureWarnings(True)
    set_level(level)


def set_level(level: str) -> None:
    """Change the level at run time (SIGHUP).

    Raises: KeyError for a level that does not exist.
    """
    number = LEVELS[level]
    logging.getLogger().setLevel(number)
    for name, floor in _QUIET.items():
        logging.getLogger(name).setLevel(max(number, floor))


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: hide values of keys like password, token and auth, and credentials inside texts."""
    for key in list(event):
        event[key] = _clean(key, event[key], 0)
    return event


def is_secret_key(key: str) -> bool:
    """Tell whether a key names a secret itself, not a file, a realm or a lifetime of one."""
    words = {word.lower() for word in _WORD_BREAK.split(key)}
    return bool(words & _SECRET_WORDS) and not words & _PLACE_WORDS


def _clean(key: str, value: Any, depth: int) -> Any:
    if is_secret_key(key) and value not in (None, "", True, False):
        return _REDACTED
    if isinstance(value, str):
        for shape, replacement in _SECRET_SHAPES:
            value = shape.sub(replacement, value)
        return value
    if depth >= _DEPTH_LIMIT:
        return value
    if isinstance(value, Mapping):
        return {inner: _clean(str(inner), item, depth + 1) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean("", item, depth + 1) for item in value]
    if isinstance(value, BaseException):
        return _clean("", f"{type(value).__name__}: {value}", depth + 1)
    return value
