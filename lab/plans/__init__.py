"""Plans: literal lists of steps that change a lab. What differs decides which plan runs; `engine` runs it."""
