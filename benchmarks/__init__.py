"""Side-by-side timings against peers; each result is kept as JSON under results/."""
