"""Large first weights

First weights with a spread of 0.5.

Hypothesis: The model begins very sure of nonsense, and has to unlearn it.
Reference: Glorot and Bengio 2010.
Expected: worse on names
"""

std = 0.5
