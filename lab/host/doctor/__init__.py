"""Whether a host is fit for a lab, and repairs.

    finding.py       what is found, for people and for programs
    case.py          what every check is given
    tools.py  resources.py  kernel.py  addresses.py     checks for more than one provider
    repairs.py       the only one that changes the host, after consent
    examination.py   all of it, for a lab's provider

`lab.host` asks the system; the checks only judge, and every one looks at the same facts.
"""
