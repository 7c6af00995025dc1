"""No feed-forward

Attention alone: what was read is added up, and nothing is made of it.

Hypothesis: Moving letters about needs attention only; working something out from them
needs the feed-forward.
Reference: Vaswani et al. 2017, Attention Is All You Need, section 3.3.
Expected: worse on addition
"""


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
    return norm(x) @ lm_head
