"""`./inv watch`: a page that shows how a lab moves while machines are lost and come back.

Data goes one way:

sources.py   asks machines and the API again and again      board.py   the last answer of each, and its age
view.py      what the page shows of it, as JSON             diary.py   what has changed between two views
serve.py     the page and its stream, on loopback only      page.*     the page itself
command.py   the verb
"""
