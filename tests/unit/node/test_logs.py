"""Every line of a node's log is one JSON object, whoever says it."""

import json
import subprocess
import sys

PROGRAM = """
import logging
import structlog
from folkmoot.node.logs import log_to_standard_error
log_to_standard_error()
structlog.get_logger().critical("node.doubt", reason="LEDGER_STALE")
logging.getLogger("folkmoot.transport").warning("no other member has shown for %.1f days", 1.5)
try:
    raise ValueError("why")
except ValueError:
    logging.getLogger("a library").exception("what")
"""


def test_what_libraries_log_is_json_too():
    said = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stderr
    ours, transport, library = map(json.loads, said.splitlines())
    assert (ours["event"], ours["level"], ours["reason"]) == ("node.doubt", "critical", "LEDGER_STALE")
    assert (transport["event"], transport["level"]) == ("no other member has shown for 1.5 days", "warning")
    assert "ValueError: why" in library["exception"]
    assert {"timestamp"} <= ours.keys() & transport.keys() & library.keys()
