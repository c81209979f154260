"""Field rules: server and node enforce the same ones, so they stand in `folkmoot.transport.validation`."""

from folkmoot.transport.validation import invalid, validate

__all__ = ["invalid", "validate"]
