"""Eight documents a step

Each step averages the gradient of eight documents instead of one.

Hypothesis: Eight times the work, and steps that know better where to go.
Reference: McCandlish et al. 2018, An Empirical Model of Large-Batch Training.
Expected: better on names
"""

batch = 8
