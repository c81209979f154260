"""Secure sum: how many patients there are in all, without anybody learning how many another one has.

The first organization adds a random number R to its count, each next one adds its own count to what it got, and the first
one takes R away from what comes back. Arithmetic is modulo 2**64 and R is uniform, so that what is passed on is uniform too and says
nothing by itself. Each sum is sealed to the one organization that is to add to it.

Two ways: `chain`, tasks that depend on each other, where R waits in the first organization's scratch folder; and `ring`, one task whose
runs message each other. Needs three organizations: of two, each would learn the other's number from the total.
"""

import secrets

from folkmoot.algorithm import Context, Organization, central, partial

MODULUS = 2**64
MASK_FILE = "mask"


# ---- as tasks that depend on each other ----------------------------------------------------------------------------


@central
def chain(ctx: Context, organizations: list[str] | None = None) -> int:
    """Return the total: one task after the other, each result sealed to the next organization alone, the total to all."""
    ring = organizations or [member.name for member in ctx.members]
    check_ring(ring)
    first = ring[0]
    task = ctx.subtask("mask", organizations=[first], result_receivers=[ring[1]], scratch=True)
    for organization, following in zip(ring[1:], [*ring[2:], first], strict=True):
        task = ctx.subtask("add", organizations=[organization], result_receivers=[following], depends_on=[task])
    task = ctx.subtask("unmask", organizations=[first], result_receivers=ring, depends_on=[task], scratch=True)
    return int(task.wait()[0].value)


@partial
def mask(ctx: Context) -> int:
    """Draw R and keep it for `unmask`; return the own count, masked by it."""
    random = secrets.randbelow(MODULUS)
    (ctx.scratch / MASK_FILE).write_text(str(random))
    return (patients(ctx) + random) % MODULUS


@partial
def add(ctx: Context) -> int:
    """Return the sum that the task before gave, with the own count added."""
    return (received(ctx) + patients(ctx)) % MODULUS


@partial
def unmask(ctx: Context) -> int:
    """Return the sum that the task before gave, without R."""
    random = int((ctx.scratch / MASK_FILE).read_text())
    return (received(ctx) - random) % MODULUS


def received(ctx: Context) -> int:
    """Return the one result that the task before this one gave to this organization."""
    (result,) = ctx.dependency(0).results()
    return int(result.value)


# ---- as one task whose runs message each other ---------------------------------------------------------------------


@partial
def ring(ctx: Context) -> int:
    """Return the total, at each of the task's organizations; they form the ring in the task's order."""
    members = ctx.siblings
    check_ring(members)
    place = members.index(ctx.organization)
    before, after = members[place - 1], members[(place + 1) % len(members)]
    if place:
        ctx.send(after, (ctx.receive(before) + patients(ctx)) % MODULUS)
        return int(ctx.receive(members[0]))
    random = secrets.randbelow(MODULUS)
    ctx.send(after, (patients(ctx) + random) % MODULUS)
    total: int = (ctx.receive(before) - random) % MODULUS
    for other in members[1:]:
        ctx.send(other, total)
    return total


# ---- both ----------------------------------------------------------------------------------------------------------


def patients(ctx: Context) -> int:
    """Return how many rows the organization's data has."""
    label = ctx.labels[0]
    return len(ctx.table(label, columns=list(ctx.tables[label])[:1]))


def check_ring(members: list[str] | tuple[Organization, ...]) -> None:
    """Raise ValueError if the ring is too small to hide anybody."""
    if len(members) < 3:
        raise ValueError(f"a secure sum needs at least three organizations, not {len(members)}")
