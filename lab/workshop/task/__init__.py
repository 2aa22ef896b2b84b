"""Looks at the lab for whoever works through the handouts: eleven tasks, one for each chapter.

task.py       the form of a task, and of what is found           catalogue.py   TASKS, the literal list
machines.py   cluster.py   afterwards.py                         what each task asks for, by theme
kept.py       what this host keeps of a lab                      look.py        asking, judging, hints
command.py    the verb
"""
