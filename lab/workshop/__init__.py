"""What a class is given: handouts made for the lab, and the tasks that grade themselves."""
