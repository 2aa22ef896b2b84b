"""Access to the operating system: commands and their output, proxies, waiting, the terminal."""
