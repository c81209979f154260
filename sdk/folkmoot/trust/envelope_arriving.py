"""An envelope on its way in: its chunks are hashed as its bytes come, so that opening it need not read them all again for that.

    arriving = ArrivingBody()
    async for data in download(...): file.write(data); arriving.add(data)
    opened = open_envelope(FileSource(file), ..., arrived=arriving)

It believes nothing and refuses nothing: `open_envelope` does that, with the signature over these digests.
"""

import hashlib

from folkmoot.trust.encoding import parse
from folkmoot.trust.envelope_format import CHUNK_BYTES, LENGTH_BYTES, MAGIC, MAX_HEADER_BYTES, TAG_BYTES
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.envelope_pb2 import EnvelopeHeader

_PROLOGUE = len(MAGIC) + LENGTH_BYTES


class ArrivingBody:
    """Takes an envelope's bytes in order, in pieces of any size, and keeps the digests of its chunks; all but the last one count."""

    def __init__(self) -> None:
        self.chunk_digests: list[bytes] = []
        self._beginning = bytearray()
        self._chunk_bytes = 0
        """How long a chunk is, tag included; 0 until the header says so."""
        self._hash = hashlib.sha256()
        self._missing = 0

    def add(self, data: bytes) -> None:
        """Take what comes next."""
        rest = memoryview(data)
        if not self._chunk_bytes:
            rest = memoryview(self._after_header(data))
        while rest:
            piece, rest = rest[: self._missing], rest[self._missing :]
            self._hash.update(piece)
            self._missing -= len(piece)
            if not self._missing:
                self.chunk_digests.append(self._hash.digest())
                self._begin_chunk()

    def _after_header(self, data: bytes) -> bytes:
        """Return what comes behind the header, if that is whole; of what is no envelope, nothing ever does."""
        if len(self._beginning) > _PROLOGUE + MAX_HEADER_BYTES:
            return b""
        self._beginning += data
        body_offset = _PROLOGUE + int.from_bytes(self._beginning[len(MAGIC) : _PROLOGUE], "big")
        if len(self._beginning) < max(_PROLOGUE, body_offset):
            return b""
        try:
            header = parse(EnvelopeHeader, bytes(self._beginning[_PROLOGUE:body_offset]))
        except FolkmootError:
            return b""
        self._chunk_bytes = CHUNK_BYTES + (TAG_BYTES if header.wraps else 0)
        self._begin_chunk()
        body = bytes(self._beginning[body_offset:])
        self._beginning.clear()
        return body

    def _begin_chunk(self) -> None:
        self._hash, self._missing = hashlib.sha256(), self._chunk_bytes
