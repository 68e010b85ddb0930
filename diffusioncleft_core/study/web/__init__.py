"""The page on which raters answer, and the database that keeps their answers."""
