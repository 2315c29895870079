"""What reaches the log: no secret ever, no whole phone number at info, and both renderings."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from trunkline import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield io.StringIO()
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_json_is_one_object_a_line_with_event_level_and_utc_time(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    structlog.get_logger().info("call.ended", linkedid="hq-1763821234.17", status="MISSED", legs=2)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "call.ended",
        "level": "info",
        "linkedid": "hq-1763821234.17",
        "status": "MISSED",
        "legs": 2,
    }


def test_pretty_is_readable_and_uncoloured_in_a_file(stream: io.StringIO) -> None:
    logs.configure("info", "pretty", stream)
    structlog.get_logger().warning("ami.login_refused", host="127.0.0.1")
    assert "ami.login_refused" in stream.getvalue()
    assert "host=127.0.0.1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_secrets_never_reach_the_log(stream: io.StringIO, style: str) -> None:
    logs.configure("debug", style, stream)
    log = structlog.get_logger()
    log.debug("a", password="canary1", ami_secret="canary2", api_key="canary3", Authorization="Bearer canary4")
    log.info("b", url="postgresql://trunkline:canary5@db/x", fields={"Secret": "canary6"}, many=["x://u:canary7@h"])
    try:
        raise ConnectionError("cannot reach postgresql://trunkline:canary8@db/x")
    except ConnectionError:
        log.exception("c", error=ConnectionError("redis://:canary9@h"))
    logging.getLogger("some.library").warning("connecting to %s", "amqp://u:canary10@h")
    assert "canary" not in stream.getvalue()
    assert "amqp://***@h" in stream.getvalue()


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("number", "+447700900123", "…23"),
        ("caller", "02070001001", "…01"),
        ("from_", "15551234567", "…67"),
        ("exten", "1001", "1001"),
        ("text", "call from +447700900123.", "call from …23."),
        ("channel", "PJSIP/447700900123-00000001", "PJSIP/…23-00000001"),
        ("uri", "sip:442070001001@127.0.0.1", "sip:…01@127.0.0.1"),
        ("linkedid", "hq-1763821234.17", "hq-1763821234.17"),
        ("uniqueid", "1763821234.17", "1763821234.17"),
        ("call_id", "12345678-1234-4321-8765-123456789abc", "12345678-1234-4321-8765-123456789abc"),
        ("rang", ["1001", "447700900123"], ["1001", "…23"]),
        ("count", 447700900, 447700900),
    ],
)
def test_numbers_keep_only_their_last_two_digits_at_info(
    stream: io.StringIO, key: str, value: object, shown: object
) -> None:
    logs.configure("info", "json", stream)
    structlog.get_logger().info("call.ringing", **{key: value})
    assert json.loads(stream.getvalue())[key] == shown


def test_numbers_are_whole_at_debug(stream: io.StringIO) -> None:
    logs.configure("debug", "json", stream)
    structlog.get_logger().debug("call.ringing", number="+447700900123")
    assert json.loads(stream.getvalue())["number"] == "+447700900123"


def test_what_is_below_the_level_is_not_written(stream: io.StringIO) -> None:
    logs.configure("warning", "json", stream)
    structlog.get_logger().info("call.ringing")
    logging.getLogger("library").info("chatter")
    assert stream.getvalue() == ""
    logging.getLogger("library").error("trouble")
    assert json.loads(stream.getvalue())["library"] == "library"
