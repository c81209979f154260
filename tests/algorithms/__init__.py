"""Algorithms that only tests run."""
