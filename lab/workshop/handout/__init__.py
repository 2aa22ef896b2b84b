"""Writes handouts: Markdown chapters with the lab's own names, addresses and versions.

    chapters.py   a chapter's file: front matter, then a template, then Markdown
    context.py    the values that templates get from the lab; none of them is secret
    prose.py      Markdown → HTML: boxes, ways, commands to copy
    topology.py   the positions in the drawing of the lab
    words.py      the texts other than chapters, in English and Korean
    page.py       chapters → one HTML file, for students or for instructors
    pdf.py        that file as a PDF
    seats.py      a class: one lab for each seat, none overlapping another
    command.py    the verb: what is written where

No module here reads `.lab/secrets`, the kubeconfig, or anything else that is not public.
"""
