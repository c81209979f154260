"""What an algorithm said of its failure, as those read it whom it was sealed to.

Another organization's node has sealed it: what is larger than any failure that a node of ours would seal is not read at all.
"""

from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.trust import FolkmootError, Opened, parse
from folkmoot.v1.proxy_service_pb2 import Failure

FAILURE_CONTENT_TYPE = "application/vnd.folkmoot.failure"


def read_failure(opened: Opened) -> Failure:
    """Return what a FAILURE envelope holds, or a failure that says that it can't be read."""
    try:
        if opened.total_length <= FRAME_BYTES:
            return parse(Failure, opened.content())
    except FolkmootError:
        pass
    return Failure(message="(what the algorithm said can't be read)")
