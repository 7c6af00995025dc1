"""Short context

The model sees eight tokens instead of sixteen; longer documents are cut.

Hypothesis: What lies further back is not seen.
Reference: Khandelwal et al. 2018, Sharp Nearby, Fuzzy Far Away: How Neural Language
Models Use Context.
Expected: worse on copy
"""

block_size = 8
