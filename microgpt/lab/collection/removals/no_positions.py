"""No positions

A token no longer carries its place. Only the mask still tells early from late: the
first token can read one token, the second two.

Hypothesis: Tasks that are about order fail; sorting, which is about counting, is hurt
less.
Reference: Vaswani et al. 2017, Attention Is All You Need, section 3.5; Haviv et al.
2022, Transformer Language Models without Positional Encodings Still Learn Positional
Information.
Expected: worse on reverse
"""


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head
