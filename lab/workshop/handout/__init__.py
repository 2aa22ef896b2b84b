"""Writes handouts: the lab's own names, addresses and versions in chapters that are Markdown.

    chapters.py   a chapter's file: front matter, then a template, then Markdown
    context.py    what the templates know of the lab; nothing secret is among it
    prose.py      Markdown → HTML: boxes, ways, commands to copy
    topology.py   where things stand in the drawn picture
    words.py      what a handout says besides its chapters, in English and Korean
    page.py       chapters → one HTML file, for students or for instructors
    pdf.py        that file, printed
    seats.py      a class: one lab for each seat, and none overlaps another
    command.py    the verb: what is written where

Nothing here reads `.lab/secrets`, the kubeconfig, or anything else that is not for everyone.
"""
