"""What rests at the station: sealed payloads, scratch, dataframes; how long, and whether there is room."""
