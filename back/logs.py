"""What a service logs: one line each on stderr, as JSON or as text, with the id of the request that it is about.

No bodies, no tokens and no question marks' parts of addresses: what people ask for is not kept.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from flask import g, has_app_context

from clipsieve.errors import InputError, quoted, without_middle

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "text")

MOST_TRACE = 20_000
"""Letters of a traceback, which ends in what the error said."""

log = logging.getLogger("clipsieve.back")


class Lines(logging.Formatter):
    """A record as one line; as text, an exception has lines of its own."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        request = g.get("request_id") if has_app_context() else None
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        fields = {name: without_middle(v) if isinstance(v, str) else v for name, v in fields.items()}
        message = without_middle(record.getMessage())
        line = {"time": time, "level": record.levelname.lower(), "message": message}
        if request is not None:
            line["request_id"] = request
        error = without_middle(self.formatException(record.exc_info), MOST_TRACE) if record.exc_info else None
        if self._json:
            return json.dumps(
                {**line, **fields, **({} if error is None else {"exception": error})}, ensure_ascii=False, default=str
            )
        words = [time, record.levelname, message, *(f"{k}={v}" for k, v in fields.items())]
        if request is not None:
            words.append(f"request_id={request}")
        return _one_line(" ".join(words)) + ("" if error is None else f"\n{error}")


def set_up(level: str, form: str | None, stream: TextIO) -> None:
    """Log to the stream from now on, what libraries have to say included; they say what they warn of.

    level  one of LEVELS
    form   one of FORMATS; None is text for a terminal, else JSON
    """
    if level.lower() not in LEVELS:
        raise InputError(f"--log-level {quoted(level)} is none of {', '.join(LEVELS)}.")
    if form is not None and form not in FORMATS:
        raise InputError(f"--log-format {quoted(form)} is none of {', '.join(FORMATS)}.")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(form or ("text" if stream.isatty() else "json")))
    number = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger("clipsieve").setLevel(number)
    logging.captureWarnings(True)
    logging.disable(logging.NOTSET)  # the command line silences libraries


def answered(
    method: str, path: str, status: int, seconds: float, client: str | None, quiet: bool, id: str | None = None
) -> None:
    """Log a request that was answered.

    quiet  it is asked all the time, by what watches the service
    id     the request's, where the application does not know it
    """
    level = logging.ERROR if status == 500 else logging.WARNING if status > 500 else logging.INFO
    fields = {"method": method, "path": path, "status": status, "ms": round(1000 * seconds, 1), "client": client}
    if id is not None:
        fields["request_id"] = id
    log.log(logging.DEBUG if quiet and status < 500 else level, "request", extra={"fields": fields})


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
