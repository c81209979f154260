"""What Prometheus reads: over HTTP, by its own parser."""

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


async def scrape(address: str) -> str:
    """Read what is served."""

    def get() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            return answer.read().decode()

    return await asyncio.to_thread(get)


def names_and_samples(text: str) -> tuple[set[str], dict[tuple[str, ...], float]]:
    """Return the names of all samples, and the samples by name and values of labels."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {each.name for each in found}, {(each.name, *each.labels.values()): each.value for each in found}


def of(text: str) -> dict[tuple[str, ...], float]:
    """Return samples by name and values of labels."""
    return names_and_samples(text)[1]
