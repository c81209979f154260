"""What a run can reach: the proxy on its own socket, and what stands behind each of its calls."""
