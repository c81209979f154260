"""What operators see of a server that works: log, metrics, traces, health."""
