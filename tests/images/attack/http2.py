"""HTTP/2 as nobody should speak it: by hand, on a Unix socket. Enough to leave a server waiting, and no more."""

import os
import socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8
END_HEADERS = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    """A header that is not indexed, with a name and value that are not compressed (RFC 7541, section 6.2.2)."""

    def text(words: str) -> bytes:
        return bytes([len(words)]) + words.encode()

    return b"\x00" + text(name) + text(value)


def request(stream: int, method: str) -> bytes:
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/folkmoot.v1.ProxyService/{method}",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return frame(HEADERS, END_HEADERS, stream, b"".join(literal(*header) for header in headers.items()))


def connected(path: str) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(5)
    end.connect(path)
    return end


def half_messages(path: str, *, streams: int, size_bytes: int, method: str = "WriteResult") -> socket.socket:
    """Open calls that each announce a message, send most of it, and stop; return the connection, still open."""
    end = connected(path)
    end.sendall(PREFACE + frame(SETTINGS, 0, 0))
    end.settimeout(0.5)
    for number in range(streams):
        stream = 2 * number + 1
        end.sendall(request(stream, method))
        left = size_bytes - 1
        announced = b"\x00" + size_bytes.to_bytes(4, "big")
        try:
            while left > 0:
                piece = min(left, 16_000)
                end.sendall(frame(DATA, 0, stream, announced + bytes(piece)))
                announced = b""
                left -= piece
        except OSError:  # it takes no more, or has had enough
            break
    return end


def garbage(path: str) -> None:
    """Everything that is no HTTP/2."""
    for nonsense in (
        b"\x00" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000,
        PREFACE + os.urandom(100_000),
        PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 1, b"x") + frame(99, 255, 7, b"x" * 16_000),
        PREFACE + frame(SETTINGS, 0, 0, b"odd"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, b"\xff\xff\xff\xff") * 1000,
        PREFACE + (frame(HEADERS, 0, 1, b"\x00" * 16_000) * 100),
        b"\xff\xff\xff" + b"\x00" * 6,
    ):
        try:
            with connected(path) as end:
                end.sendall(nonsense)
        except OSError:
            continue
