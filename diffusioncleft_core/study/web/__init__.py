"""The page on which raters rate, and the database that keeps what they said."""
