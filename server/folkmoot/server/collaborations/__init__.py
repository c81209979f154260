"""Collaborations: their ledgers, which the server orders and cannot alter unnoticed, and what is kept beside these."""
