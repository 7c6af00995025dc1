"""Short context

The model sees eight tokens instead of sixteen; longer documents are cut.

Hypothesis: What lies further back is not seen.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: worse on copy
"""

block_size = 8
