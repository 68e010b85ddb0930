"""What a user chooses of an audit of a LoRA, without what computes it."""

from ..ranges import whole

LEAST_SEEDS = 2
EXTRACTION, MEMBERSHIP = "extraction", "membership"
PARTS = (EXTRACTION, MEMBERSHIP)
SEEDS = whole(LEAST_SEEDS, 64)
AUDIT_SEEDS = 8
