"""What the daemon, the process that forks and the forked ones say to each other."""

LOADED, FORK = b"R", b"F"
"""Over the socket of the process that forks: the definitions are loaded; fork a process for the socket beside this."""
READY, GO, ENDED = "ready", "go", "ended"
"""Over the connection of a forked process: it will make the run whose id came; it is to begin; the run has ended."""
PID_BYTES = 4
"""With its own number, big-endian, a forked process begins."""
