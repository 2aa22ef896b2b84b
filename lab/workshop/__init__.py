"""What a class gets: handouts for the lab, tasks that are checked automatically, a page that shows it move."""
