"""Algorithms that people start from. Each folder is a package: the module of a process image, or the source of a container image."""
