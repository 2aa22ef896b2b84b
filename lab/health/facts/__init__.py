"""What a running lab says of itself, asked once, side by side, and kept as frozen facts.

What could not be asked is `Unknown`, with the reason: never taken for a no, nor for a yes.
"""
