"""Every timeout of a connection, in one place: nothing else in the configuration or the code limits how long a link may take.

A transfer is never limited in total: only silence ends it.
"""

CALL_SECONDS = 30.0
"""A unary call from request to answer."""

IDLE_SECONDS = 60.0
"""A payload stream in which not a byte moves."""

KEEPALIVE_SECONDS = 30.0
"""How often an idle connection is probed."""

KEEPALIVE_ANSWER_SECONDS = 10.0
"""How long the answer to a probe may take; then the connection is dead. A frozen peer is noticed after the sum of both."""

HEARTBEAT_SECONDS = 10.0
"""How often both ends of a node's link give a sign of life; three missing ones mean that the other end is gone.

So often as well is told who waits for bytes of a payload that they are still to come.
"""

RECONNECT_SECONDS = 5.0
"""The longest pause between two attempts to connect, the first one being a fiftieth of it; and how long an attempt may take."""
