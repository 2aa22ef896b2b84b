"""Facts about a running lab, gathered once, in parallel, and kept as frozen records.

A fact that could not be determined is `Unknown`, with the reason; it never counts as a yes or a no.
"""
