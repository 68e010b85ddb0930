"""Private image sets from photographs: ingest, checks, consent, captions, hold-out, manifest, purge."""
