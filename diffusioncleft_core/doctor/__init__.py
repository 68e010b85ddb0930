"""The field test: does everything work on this machine, with these weights, and what will a run cost?"""
