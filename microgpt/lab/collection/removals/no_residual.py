"""No residual

Attention and feed-forward put their result in place of the stream, instead of adding to
it.

Hypothesis: What a part does not pass on is lost, its gradient too: the more layers, the
worse.
Reference: He et al. 2016, Deep Residual Learning for Image Recognition, section 3.
Expected: worse on names
"""


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        x = x * 0  # nothing is kept
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head
