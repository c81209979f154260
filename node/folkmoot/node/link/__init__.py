"""The link to the server: what comes, and what goes until the server has it."""
