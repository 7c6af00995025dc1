"""GELU

A smooth bend in place of ReLU: a cell is weighed by how likely a normal number lies
below it. This is the approximation by tanh that GPT-2 uses.

Hypothesis: A slope that is never quite zero is kinder to training; at this size hardly
a difference.
Reference: Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2.
Expected: alike on names
"""


def bend(a):  # the share of a normal distribution below a, nearly
    return 0.5 + 0.5 * math.tanh((2 / math.pi) ** 0.5 * (a + 0.044715 * a**3))

def slope(a):  # how fast it grows there
    return (8 / math.pi) ** 0.5 * bend(a) * (1 - bend(a)) * (1 + 0.134145 * a**2)


class Tensor:
    def gelu(self):
        return self.cellwise(lambda a: (a * bend(a), bend(a) + a * slope(a)))


def mlp(x, fc, proj):  # (T, C) -> (T, C), each token on its own
    hidden = (x @ fc).gelu()  # (T, 4C)
    return hidden @ proj
