"""Benchmarks: every row is Folkmoot's figure beside the raw limit measured in the same run on the same machine."""
