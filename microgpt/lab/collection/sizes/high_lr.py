"""Ten times the learning rate

0.1 instead of 0.01.

Hypothesis: Steps that overshoot; the model learns little more than how frequent letters
are.
Reference: Bengio 2012, Practical Recommendations for Gradient-Based Training of Deep
Architectures, section 3.
Expected: worse on names
"""

lr = 0.1
