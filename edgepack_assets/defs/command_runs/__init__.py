"""Runs that a command makes itself, as `edgepack package` and the quickstart do.

runs.py      the interface: so many partitions, so many at once, what became of each
start.py     forking a process for them, before it imports Dagster
process.py   making one run after the other in that process
messages.py  what the command and that process tell each other
display.py   bars and lines while they last
daemon.py    handing a run over to Dagster's daemon instead
"""
