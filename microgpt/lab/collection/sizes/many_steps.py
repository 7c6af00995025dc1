"""Three times the steps

3000 steps instead of 1000.

Hypothesis: There is more to learn than a thousand documents teach.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: better on names
"""

steps = 3000
