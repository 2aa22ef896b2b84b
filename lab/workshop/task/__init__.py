"""Checks the work of students on the lab: eleven tasks, one for each chapter of the handouts.

task.py       the shape of a task and of a finding               catalogue.py   TASKS, the literal list
machines.py   cluster.py   afterwards.py                         what each task requires, by subject
kept.py       what this host keeps about a lab                   look.py        asking, judging, hints
command.py    the verb
"""
