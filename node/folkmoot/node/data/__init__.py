"""The data that runs may read: one keyless child process per read, Arrow out.

`sources` says where a label's data lies, `tables` serves it to runs, `readers` keeps the children, and `reader` with
`filters` is what runs inside of a child.
"""
