"""The secure sum, by an algorithm that tells all it knows: every number goes to its log, its progress and its scratch.

The numbers to add are 60-bit ones from the table's column `value`, so that none of them stands anywhere by chance. What the server can
find of them is what a test asks; a well-behaved algorithm would make that question too easy.
"""

import json
import secrets

from examples import secure_sum
from examples.secure_sum import MODULUS
from folkmoot.algorithm import Context, partial

SECRETS_FILE = "secrets.json"


def value(ctx: Context) -> int:
    """The organization's own number."""
    (own,) = ctx.table("patients", columns=["value"]).column("value")
    return int(own)


def tell(ctx: Context, **numbers: int) -> None:
    """Say numbers by every way out of the run, and keep them where the test can read them."""
    for name, number in numbers.items():
        # Decimal text is what a careless program writes; the test searches for the other forms as well.
        ctx.log(f"{name} is {number}")
        ctx.progress(0.5, f"{name} is {number}")
    path = ctx.scratch / SECRETS_FILE
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | numbers))


@partial
def mask(ctx: Context) -> int:
    """x1 = a + R; R waits in scratch."""
    own, random = value(ctx), secrets.randbelow(MODULUS)
    (ctx.scratch / secure_sum.MASK_FILE).write_text(str(random))
    masked = (own + random) % MODULUS
    tell(ctx, a=own, R=random, x1=masked)
    return masked


@partial
def add(ctx: Context, name: str, result: str) -> int:
    """x2 = x1 + b, x3 = x2 + c."""
    own = value(ctx)
    total = (secure_sum.received(ctx) + own) % MODULUS
    tell(ctx, **{name: own, result: total})
    return total


@partial
def unmask(ctx: Context) -> int:
    """N = x3 - R."""
    random = int((ctx.scratch / secure_sum.MASK_FILE).read_text())
    return (secure_sum.received(ctx) - random) % MODULUS


@partial
def ring(ctx: Context) -> int:
    """The same as one task whose runs message each other."""
    members = ctx.siblings
    place = members.index(ctx.organization)
    before, after = members[place - 1], members[(place + 1) % len(members)]
    own = value(ctx)
    if place:
        total = (ctx.receive(before) + own) % MODULUS
        tell(ctx, **{"abc"[place]: own, f"x{place + 1}": total})
        ctx.send(after, total)
        return int(ctx.receive(members[0]))
    random = secrets.randbelow(MODULUS)
    tell(ctx, a=own, R=random, x1=(own + random) % MODULUS)
    ctx.send(after, (own + random) % MODULUS)
    total = (ctx.receive(before) - random) % MODULUS
    for other in members[1:]:
        ctx.send(other, total)
    return int(total)
