"""Payloads: sealed bytes too large for a message; where they rest, how much of them, how long."""
