"""The journal: what the station has promised, on disk before anybody is told."""
