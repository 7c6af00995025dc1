"""Large first weights

First weights with a spread of 0.5 instead of 0.08.

Hypothesis: The model begins very sure of nonsense, and has to unlearn it.
Reference: Glorot and Bengio 2010, Understanding the Difficulty of Training Deep
Feedforward Neural Networks.
Expected: worse on names
"""

std = 0.5
