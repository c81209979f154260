"""Codes of authenticator apps: time-based one-time passwords (RFC 6238), six digits, a new one every 30 seconds.

The code of a step is good in that step and one before or after it, since clocks differ and people type slowly; whoever
asks must remember the step, so that each code is good once. All candidates are compared whatever comes first.
"""

import base64
import io
from datetime import datetime
from hmac import compare_digest

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from folkmoot.server.core import Random

SECRET_BYTES = 20
DIGITS = 6
STEP_SECONDS = 30
WINDOW_STEPS = 1
_PIXELS_PER_MODULE = 6


def new_secret(random: Random) -> bytes:
    """Return a secret for an authenticator app."""
    return random(SECRET_BYTES)


def matching_step(secret: bytes, code: str, now: datetime) -> int | None:
    """Return the step whose code it is, the latest if there are several; None if it is none of those that are good now."""
    present = int(now.timestamp()) // STEP_SECONDS
    found = None
    for step in range(present - WINDOW_STEPS, present + WINDOW_STEPS + 1):
        if compare_digest(_generator(secret).generate(step * STEP_SECONDS), code.encode()):
            found = step
    return found


def in_base32(secret: bytes) -> str:
    """Return the secret as people type it."""
    return base64.b32encode(secret).decode().rstrip("=")


def uri(secret: bytes, *, username: str, issuer: str) -> str:
    """Return what authenticator apps read."""
    return _generator(secret).get_provisioning_uri(username, issuer)


def qr_code(text: str) -> bytes:
    """Return a text as an image in PNG."""
    import segno  # takes as long as the rest of the server's start, for something that most servers do once a week

    image = io.BytesIO()
    segno.make(text, error="m").save(image, kind="png", scale=_PIXELS_PER_MODULE)
    return image.getvalue()


def _generator(secret: bytes) -> TOTP:
    return TOTP(secret, DIGITS, SHA1(), STEP_SECONDS)  # noqa: S303 -- what all apps can do; RFC 6238 builds on HMAC
