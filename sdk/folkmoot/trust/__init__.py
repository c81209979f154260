"""Trust: keys, signed things, envelopes and the ledger, as pure code that client, node and server share.

Nothing here reads a file, a clock or the network: times (`now`, UTC) and randomness (`random`, such as `os.urandom`) are
passed in. What is refused raises a `TrustError` that carries a reason of the catalogue. Bytes and formats never change:
what the first release signed or sealed, every later one verifies and opens.
"""
