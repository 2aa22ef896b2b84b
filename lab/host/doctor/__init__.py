"""Checks whether a host can run a lab, and repairs it.

    finding.py       the doctor's findings, for the terminal and for programs
    case.py          the input of every check
    tools.py  resources.py  kernel.py  addresses.py     checks for more than one provider
    repairs.py       the only module that changes the host, after consent
    examination.py   all checks, for a lab's provider

`lab.host` gathers facts; the checks only judge, and all use the same facts.
"""
