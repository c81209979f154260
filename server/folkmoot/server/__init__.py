"""The control plane: it stores, orders and forwards what others sign and seal, and can read none of it."""
