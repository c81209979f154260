"""Raw limits: bare programs that do only the part of a row's work that no implementation can avoid.

Nothing here imports Folkmoot. Each module has one public function, `measure(...)`, and runs alone
(`python -m bench.limits.NAME` prints one JSON line per figure); `registry.py` lists them all.
"""
