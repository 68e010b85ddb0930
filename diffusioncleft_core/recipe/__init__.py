"""The recipe of a training run: its fields, its named forms, its file."""
