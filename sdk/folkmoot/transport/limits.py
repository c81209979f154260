"""How large things may be. The contract states the same numbers."""

MESSAGE_BYTES = 4 * 1024 * 1024
"""A whole gRPC message."""

INLINE_BYTES = 256 * 1024
"""An envelope that rides along in a message. Larger ones are uploaded in parts."""

FRAME_BYTES = 1024 * 1024
"""The bytes in one message of a payload stream."""

PART_BYTES = 8 * 1024 * 1024
"""A part: what an interrupted upload has to send again at most."""
