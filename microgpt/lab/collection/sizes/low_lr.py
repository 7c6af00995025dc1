"""A tenth of the learning rate

0.001 instead of 0.01.

Hypothesis: Too slow to arrive in time.
Reference: Bengio 2012, Practical Recommendations for Gradient-Based Training of Deep
Architectures, section 3.
Expected: worse on names
"""

lr = 0.001
