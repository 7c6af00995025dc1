"""Label smoothing

The target keeps nine tenths; the last tenth is shared by all tokens.

Hypothesis: Answers become less certain; where certainty is right, the surprise at the
truth grows.
Reference: Szegedy et al. 2016, Rethinking the Inception Architecture for Computer
Vision, section 7.
Expected: worse on names
"""


def cross_entropy(logits, targets):  # (T, V), (T, V) -> (1, 1), the mean surprise
    targets = targets * 0.9 + 0.1 / targets.shape[-1]
    probs = softmax(logits)
    surprise = (targets * (probs + 1e-30).log()).sum(-1, keepdim=True) * -1
    return surprise.transpose(-2, -1).sum(-1, keepdim=True) / surprise.shape[-2]
