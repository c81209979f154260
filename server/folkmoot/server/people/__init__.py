"""People, and what they may do: accounts, the ways in which they prove who they are, roles and rules."""
