"""A sum by messages, by an author who counts nothing: what the node hands over is added up until somebody says that it is all.

The toolkit's `receive` would notice a message that is missing even if the node did not; an algorithm in another language need not.
"""

from folkmoot.algorithm import Context, partial
from folkmoot.algorithm.values import decode


@partial
def total(ctx: Context, numbers: list[int]) -> int:
    """The first organization adds up what the second one sends it: each number, then nothing."""
    receiver, sender = ctx.siblings
    if ctx.organization == sender:
        for number in (*numbers, None):
            ctx.send(receiver, number)
        return len(numbers)
    added = 0
    had: dict[str, int] = {}
    while True:
        for message in ctx._proxy.take_messages(had):
            had[message.organization_id] = message.sequence
            number = decode(message.content_type, message.content)
            if number is None:
                return added
            added += number
