"""Files of records: each with its length before it (4 bytes, big-endian). What was written by halves at the end is not one."""

from collections.abc import Iterable, Iterator

LENGTH_BYTES = 4


def dump_records(records: Iterable[bytes]) -> bytes:
    """Return records as a file has them."""
    return b"".join(len(record).to_bytes(LENGTH_BYTES, "big") + record for record in records)


def load_records(data: bytes) -> Iterator[bytes]:
    """Yield the records that are whole."""
    position = 0
    while position + LENGTH_BYTES <= len(data):
        begin = position + LENGTH_BYTES
        end = begin + int.from_bytes(data[position:begin], "big")
        if end > len(data):
            return
        yield data[begin:end]
        position = end
