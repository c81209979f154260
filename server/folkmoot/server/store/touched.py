"""What a transaction has changed for others: collected as it goes, woken once it is committed."""

from folkmoot.server.wakers import link_topic, task_topic


class Touched:
    """The topics of one transaction. Made anew whenever the transaction is run, so that nothing of a failed try remains."""

    def __init__(self) -> None:
        self.topics: set[str] = set()

    def task(self, task_id: str) -> None:
        """A run of the task has changed, or its log."""
        self.topics.add(task_topic(task_id))

    def link(self, link_id: int) -> None:
        """There is something to deliver."""
        self.topics.add(link_topic(link_id))
