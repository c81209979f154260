"""What the station believes, and the keys by which it acts."""
