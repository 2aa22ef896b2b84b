"""The door to the operating system: commands and what they print, proxies, waiting, the terminal."""
