"""Tasks and their runs, from creation to deletion, and the sessions whose dataframes they use."""
