"""No attention

The loop over the heads is gone. What a token knows of the text is now only itself and
its place.

Hypothesis: A task whose answer stands elsewhere in the text can only be guessed.
Reference: Vaswani et al. 2017, Attention Is All You Need, section 3.2.
Expected: worse on recall
"""


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head
