"""Plans: literal lists of steps that change a lab, each chosen by what differs; `engine` carries any of them out."""
