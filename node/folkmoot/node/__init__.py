"""The data station: verifies what it is asked to run, runs it beside the data, and sends sealed results, never the data.

`app` wires it. `executor` knows the life of a run; `runtimes`, `proxy` and `data` know engines, sockets and files; `ports` stands between.
"""
