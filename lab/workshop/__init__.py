"""What a class gets: handouts for the lab, and tasks that are checked automatically."""
