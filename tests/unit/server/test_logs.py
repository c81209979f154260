"""The log: one JSON object per line, with the call's request id."""

import contextvars
import io
import json

from folkmoot.server import context
from folkmoot.server.observation import logs


def test_line_is_json_with_the_request_id():
    stream = io.StringIO()
    log = logs.make("info", stream)

    def call():
        context.enter("request-1")
        log.info("call", method="/x/Y")

    contextvars.copy_context().run(call)
    log.info("server.started")
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert (inside["event"], inside["request_id"], inside["method"]) == ("call", "request-1", "/x/Y")
    assert inside["level"] == "info"
    assert "request_id" not in outside


def test_level_leaves_out_what_is_below():
    stream = io.StringIO()
    logs.make("warning", stream).info("call")
    assert stream.getvalue() == ""


def test_fault_is_logged_with_its_traceback_in_one_line():
    stream = io.StringIO()
    logs.make("info", stream).error("call.fault", exc_info=ZeroDivisionError("of ours"))
    [line] = stream.getvalue().splitlines()
    assert "ZeroDivisionError: of ours" in json.loads(line)["exception"]
