"""The door to the operating system: commands, proxies, waiting with deadlines, the terminal."""
