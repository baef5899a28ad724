"""Processes that make the daemon's runs, one after the other, instead of a new one for each.

    start.py        the daemon's side: which process makes a run, and what becomes of the run if it ends
    fork_server.py  the process that has loaded the definitions and forks the others
    serve.py        what a forked process does
    messages.py     what they say to each other
    loaded_code.py  whether what a process has loaded is still what is installed
    memory.py       whether memory is short

docs/design/helpers.md says what holds for them.
"""
