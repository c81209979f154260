"""The algorithms that the rows run: as little as an algorithm can do."""
