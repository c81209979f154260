"""The one error of image building."""


class BuildFailed(Exception):  # noqa: N818 - says what is the case
    """An image could not be built; the message says why and what to do, with the end of what the tools printed."""


def tail(output: str, lines: int = 20) -> str:
    """Return the end of a tool's output."""
    return "\n".join(output.strip().splitlines()[-lines:])
