"""The data owner's policy: read, weighed on verified facts, put into words."""
