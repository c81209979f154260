"""What a client, a node and the server share to talk to each other: channels, status, retries, payload transfer, keys and the ledger's replica.

This package moves bytes and keeps files. What the bytes mean, and whether they may be believed, is decided in `folkmoot.trust`.
"""

from folkmoot.transport.calls import retrying
from folkmoot.transport.channel import (
    CHANNEL_OPTIONS,
    SERVER_OPTIONS,
    TOKEN_METADATA_KEY,
    ServerAddress,
    open_channel,
)
from folkmoot.transport.keyring import Keyring
from folkmoot.transport.limits import FRAME_BYTES, INLINE_BYTES, MESSAGE_BYTES, PART_BYTES
from folkmoot.transport.payloads import download, upload
from folkmoot.transport.replica import Replica
from folkmoot.transport.status import ERROR_DOMAIN, RemoteError, Unreachable, abort, error_from_rpc

__all__ = [
    "CHANNEL_OPTIONS",
    "ERROR_DOMAIN",
    "FRAME_BYTES",
    "INLINE_BYTES",
    "MESSAGE_BYTES",
    "PART_BYTES",
    "SERVER_OPTIONS",
    "TOKEN_METADATA_KEY",
    "Keyring",
    "RemoteError",
    "Replica",
    "ServerAddress",
    "Unreachable",
    "abort",
    "download",
    "error_from_rpc",
    "open_channel",
    "retrying",
    "upload",
]
