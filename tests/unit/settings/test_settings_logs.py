"""Logging: one form, one stream, no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from noded import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream to log into; the process's logging is as before after the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    yield io.StringIO()
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])
    logging.captureWarnings(False)
    structlog.reset_defaults()


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_object_with_time_level_logger_and_operation(stream: io.StringIO) -> None:
    logs.setup("info", "auto", stream)
    with structlog.contextvars.bound_contextvars(op="0123"):
        structlog.get_logger("noded.x").info("pod started", pod="p", count=3)
    (event,) = events(stream)
    assert event["timestamp"].endswith("Z")
    assert {key: event[key] for key in ("event", "level", "logger", "op", "pod", "count")} == {
        "event": "pod started", "level": "info", "logger": "noded.x", "op": "0123", "pod": "p", "count": 3,
    }  # fmt: skip


def test_records_of_the_standard_library_take_the_same_form(stream: io.StringIO) -> None:
    logs.setup("info", "json", stream)
    logging.getLogger("grpclib.server").warning("from %s", "grpclib")
    (event,) = events(stream)
    assert (event["event"], event["level"], event["logger"]) == ("from grpclib", "warning", "grpclib.server")


def test_the_level_filters_and_can_change_while_loggers_are_in_use(stream: io.StringIO) -> None:
    logs.setup("warning", "json", stream)
    log = structlog.get_logger("noded.x")
    log.info("hidden")
    logs.set_level("debug")
    log.debug("shown")
    logging.getLogger("hpack").debug("headers of a request")
    assert [event["event"] for event in events(stream)] == ["shown"]


def test_a_console_line_is_not_json(stream: io.StringIO) -> None:
    logs.setup("info", "console", stream)
    structlog.get_logger("noded.x").info("pod started", token="hunter2")
    assert "pod started" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_is_shown_with_its_notes_and_without_local_variables(
    stream: io.StringIO, form: str
) -> None:
    logs.setup("info", form, stream)
    password = "hunter" + "2"
    try:
        raise ValueError("broken")
    except ValueError as error:
        error.add_note("and a note")
        structlog.get_logger("noded.x").exception("failed", length=len(password))
    text = stream.getvalue()
    assert "ValueError: broken" in text
    assert "and a note" in text
    assert "hunter2" not in text


def test_secrets_are_hidden_wherever_they_are(stream: io.StringIO) -> None:
    logs.setup("info", "json", stream)
    structlog.get_logger("noded.x").info(
        "pull",
        auth={"username": "u", "password": "hunter2"},
        registryToken="hunter2",
        identity_token="hunter2",
        headers=[{"Authorization": "Bearer hunter2hunter2"}],
        error="GET https://u:hunter2@host/x?token=hunter2&scope=a with Basic aHVudGVyMg==",
        nested={"deep": {"client_secret": "hunter2"}},
    )
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "aHVudGVyMg" not in text
    assert "scope=a" in text


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("password", True), ("X-Auth-Token", True), ("registryToken", True), ("auth", True),
        ("set_cookie", True),
        ("auth_file", False), ("token_path", False), ("author", False), ("pod", False), ("realm", False),
        ("token_lifetime_seconds", False), ("passed", False),
    ],
)  # fmt: skip
def test_keys_that_name_secrets_are_told_from_their_files_and_likenesses(key: str, secret: bool) -> None:
    assert logs.is_secret_key(key) is secret


def test_an_absent_secret_is_not_shown_as_one() -> None:
    assert logs.redact(None, "info", {"token": None, "password": "", "auth": False}) == {
        "token": None, "password": "", "auth": False,
    }  # fmt: skip
