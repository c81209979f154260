"""The data that runs may read: one keyless child process per read, Arrow out.

`sources` says where a label's data lies, `tables` serves it to runs, `jobs` tells a child what it needs, `readers` keeps the children.
Inside of a child: `reader` does one job, `opening` finds the source (`files`, `sqlite`, `postgres`, `mariadb`, `excel`, `sparql`, or a
package's: `table_source`), `filters` and `queries` say what of it, `engine` and `confinement` shut everything in.
"""
