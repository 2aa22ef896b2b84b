"""Plans: literal lists of steps that change a lab, chosen by what differs; `engine` carries out any of them."""
