"""What keeps an installation in order: checks of the machine, garbage, use of locks."""
