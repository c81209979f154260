"""What operators do with a server's data: make it, check it, migrate it, back it up, put it back."""
