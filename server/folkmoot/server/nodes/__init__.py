"""Nodes: how they come to this server, their links, and what goes over these."""
