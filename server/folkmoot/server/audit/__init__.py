"""What happened here: the audit trail with its chain of hashes, and who used how much."""
