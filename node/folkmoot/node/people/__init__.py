"""The people at the station: what they see of runs, and what they decide."""
