"""The `folkmoot` command: what the SDK does, from a shell. The extras add their own groups (`folkmoot server`, `folkmoot node`)."""
