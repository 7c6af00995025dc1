"""Post-norm

As in the first transformer: the sum is normed after each part, and nothing flows past
the norms.

Hypothesis: Alike in one layer; in deep models it needs a warm-up.
Reference: Vaswani et al. 2017, Attention Is All You Need, section 3.1; Xiong et al.
2020, On Layer Normalization in the Transformer Architecture.
Expected: alike on names
"""


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C)
    for block in blocks:
        h = x
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = norm(x)
        x = x + mlp(x, block["fc"], block["proj"])
        x = norm(x)
    return x @ lm_head
