"""The package before: which one that is, what it answers, and what a new package keeps of it: the numbers of states and
classes, and its interface."""
