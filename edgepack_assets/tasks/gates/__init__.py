"""What metrics must hold before a package is registered, what they are compared with, and how sure they are."""
