"""Runs, carried out: from the journal's word to a delivered receipt."""
