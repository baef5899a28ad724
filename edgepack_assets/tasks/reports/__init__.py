"""What a person reads about packages: the report of one, and two compared. The tasks of assets import nothing of it."""
