"""What made the embedded models, and what measures them. Not in the wheel."""

FINDING_OF = {None: None, "pre_op": "cleft", "post_op": "scar"}
"""What the phantom draws for a condition of the embedded vocabulary; None is a healthy face."""
CONDITION_OF = {finding: condition for condition, finding in FINDING_OF.items()}
