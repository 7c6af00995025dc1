"""A whole GPT in 150 lines of plain Python, after Karpathy's microgpt and micrograd.
Shapes are (rows, columns): T tokens, C channels, D channels per head, V vocabulary."""

import math
import random

# ---- Tokenizer: text becomes whole numbers, and 0 marks both ends of a document ----

def vocabulary(docs): return ["\n"] + sorted(set("".join(docs)))
def encode(text, vocab): return [vocab.index(char) for char in "\n" + text + "\n"]

# ---- Autograd: a matrix remembers how it was made; gradients go back that way ----

def flip(a): return list(zip(*a))  # rows become columns
def add(a, b): return [[x + y for x, y in zip(*rows)] for rows in zip(a, b)]
def mul(a, b): return [[x * y for x, y in zip(*rows)] for rows in zip(a, b)]
def pick(cells, i): return [[cell[i] for cell in row] for row in cells]
dot = getattr(math, "sumprod", lambda a, b: sum([x * y for x, y in zip(a, b)]))

def matmul(a, b):  # every row of a times every column of b
    assert len(a[0]) == len(b), f"{len(a[0])} columns @ {len(b)} rows do not fit"
    columns = flip(b)
    return [[dot(row, column) for column in columns] for row in a]

def stretch(a, shape):  # a single row or column repeats to fill the shape
    wide = [row * shape[1] for row in a] if len(a[0]) == 1 else a
    full = wide * shape[0] if len(a) == 1 else wide
    assert (len(full), len(full[0])) == shape, f"({len(a)}, {len(a[0])}) is not {shape}"
    return full

def shrink(g, shape):  # on the way back, what was repeated is summed
    g = [[sum(row)] for row in g] if shape[1] == 1 else g
    return [[sum(column) for column in flip(g)]] if shape[0] == 1 else g

class Tensor:  # a matrix, and a way back for gradients to each parent it was made from
    def __init__(self, data, *parents):
        self.data, self.grad, self.parents = data, [], parents
        self.shape = len(data), len(data[0])
        self.depth = 1 + max([parent.depth for parent, _ in parents], default=0)

    def cellwise(self, f, *others):  # f: a cell's value, then its slope in each input
        nodes = [x if isinstance(x, Tensor) else Tensor([[x]]) for x in (self, *others)]
        shape = tuple(map(max, zip(*[node.shape for node in nodes])))
        grids = [stretch(node.data, shape) for node in nodes]
        cells = [list(map(f, *rows)) for rows in zip(*grids)]
        backs = [lambda g, i=i: mul(g, pick(cells, i)) for i, _ in enumerate(nodes, 1)]
        return Tensor(pick(cells, 0), *zip(nodes, backs))

    def __add__(self, other): return self.cellwise(lambda a, b: (a + b, 1, 1), other)
    def __mul__(self, other): return self.cellwise(lambda a, b: (a * b, b, a), other)
    def __pow__(self, p): return self.cellwise(lambda a: (a**p, p * a ** (p - 1)))
    def exp(self): return self.cellwise(lambda a: (math.exp(a), math.exp(a)))
    def log(self): return self.cellwise(lambda a: (math.log(a), 1 / a))
    def relu(self): return self.cellwise(lambda a: (max(a, 0.0), a > 0))
    def __sub__(self, other): return self + other * -1
    def __truediv__(self, other): return self * other**-1
    __radd__, __rmul__ = __add__, __mul__

    def __matmul__(self, other):  # each factor's gradient is g times the other, flipped
        a, b = self.data, other.data
        left, right = lambda g: matmul(g, flip(b)), lambda g: matmul(flip(a), g)
        return Tensor(matmul(a, b), (self, left), (other, right))

    def __getitem__(self, ids):  # rows by number; each row of g returns to its own
        ids = range(self.shape[0])[ids] if isinstance(ids, slice) else ids
        hot = [[float(i == j) for j in ids] for i in range(self.shape[0])]
        return Tensor([self.data[i] for i in ids], (self, lambda g: matmul(hot, g)))

    def sum(self, dim, keepdim):  # along each row, so g repeats along it
        back = lambda g: stretch(g, self.shape)
        return Tensor([[sum(row)] for row in self.data], (self, back))

    def triu(self, k):  # the upper triangle, from k right of the diagonal
        keep = lambda a: [[0.0] * (i + k) + [*row[i + k :]] for i, row in enumerate(a)]
        return Tensor(keep(self.data), (self, keep))

    def transpose(self, *dims): return Tensor(flip(self.data), (self, flip))
    def amax(self, dim, keepdim): return Tensor([[max(row)] for row in self.data])
    def new_full(self, shape, x): return Tensor([[x] * shape[1]] * shape[0])

def backward(loss):  # the chain rule: from the loss to the weights, the deepest first
    loss.grad, todo = [[1.0]], [loss]
    while todo:
        *todo, tensor = sorted(todo, key=lambda tensor: tensor.depth)
        for parent, back in tensor.parents:
            grad = shrink(back(tensor.grad), parent.shape)
            parent.grad = add(parent.grad, grad) if parent.grad else grad
            todo += [parent] if parent.parents and parent not in todo else []

# ---- Model: what comes next, given what came before ----

def softmax(x):  # any numbers become probabilities
    e = (x - x.amax(-1, keepdim=True)).exp()  # the largest becomes 1: no overflow
    return e / e.sum(-1, keepdim=True)

def norm(x):  # every row is scaled to the same size (RMSNorm)
    mean_square = (x * x).sum(-1, keepdim=True) / x.shape[-1]
    return x * (mean_square + 1e-5) ** -0.5

def attention(x, wq, wk, wv, wo):  # (T, C) -> (T, C), tokens read the ones before them
    q, k, v = x @ wq, x @ wk, x @ wv  # (T, D): what it seeks, what it is, what it says
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (T, T)
    future = scores.new_full(scores.shape, -math.inf).triu(1)
    weights = softmax(scores + future)  # (T, T), the future weighs nothing
    return weights @ v @ wo

def mlp(x, fc, proj):  # (T, C) -> (T, C), each token on its own
    hidden = (x @ fc).relu()  # (T, 4C)
    return hidden @ proj

def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head

def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    head = lambda: dict(wq=new(C, D), wk=new(C, D), wv=new(C, D), wo=new(D, C))
    ff = lambda: dict(fc=new(C, 4 * C), proj=new(4 * C, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), heads=[head() for _ in range(n_head)]) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

def leaves(tree):  # every weight matrix, always in the same order
    parts = tree.values() if isinstance(tree, dict) else tree
    return [tree] if isinstance(tree, Tensor) else [w for p in parts for w in leaves(p)]

# ---- Training: less surprise, step by step ----

def cross_entropy(logits, targets):  # (T, V), (T, V) -> (1, 1), the mean surprise
    probs = softmax(logits)
    surprise = (targets * (probs + 1e-30).log()).sum(-1, keepdim=True) * -1
    return surprise.transpose(-2, -1).sum(-1, keepdim=True) / surprise.shape[-2]

def adam(w, m, v, step, lr, beta1=0.85, beta2=0.99, eps=1e-8):  # Kingma and Ba, 2015
    c1, c2 = 1 - beta1**step, 1 - beta2**step  # m and v start at zero: make up for it
    for i, grad in enumerate(w.grad):
        m[i] = [beta1 * a + (1 - beta1) * g for a, g in zip(m[i], grad)]
        v[i] = [beta2 * a + (1 - beta2) * g * g for a, g in zip(v[i], grad)]
        move = [a / c1 / (math.sqrt(b / c2) + eps) for a, b in zip(m[i], v[i])]
        w.data[i] = [a - lr * b for a, b in zip(w.data[i], move)]
    w.grad = []  # the next step starts from nothing

def train(params, docs, vocab, steps=1000, batch=1, lr=0.01, start=0, moments=None):
    weights = leaves(params)
    moments = moments or [((w * 0).data, (w * 0).data) for w in weights]
    for step in range(start, steps):
        total = 0.0  # the loss, averaged over the documents of this step
        for i in range(step * batch, (step + 1) * batch):
            ids = encode(docs[i % len(docs)], vocab)[: params["wpe"].shape[-2] + 1]
            targets = Tensor([[j == t for j in range(len(vocab))] for t in ids[1:]])
            loss = cross_entropy(gpt(ids[:-1], **params), targets) / batch
            backward(loss)
            total += loss.data[0][0]
        for w, (m, v) in zip(weights, moments):
            adam(w, m, v, step + 1, lr * (1 - step / steps))  # ever smaller steps
        yield total

# ---- Sampling: each guess becomes input for the next ----

def sample(params, vocab, rng, temperature=1.0, text=""):
    while not text.endswith("\n") and len(text) < params["wpe"].shape[-2]:
        logits = gpt(encode(text, vocab)[:-1], **params)[-1:] / temperature
        probs = softmax(logits).data[0]
        text += rng.choices(vocab, probs)[0]
        yield text

if __name__ == "__main__":
    rng = random.Random(42)
    docs = open(__file__.replace("gpt.py", "data/names.txt")).read().split()
    vocab = vocabulary(docs)
    params = init(rng, len(vocab))
    for step, loss in enumerate(train(params, docs, vocab), start=1):
        print(f"step {step:4} | loss {loss:.4f}", end="\r" if step % 100 else "\n")
    for _ in range(20):
        print(list(sample(params, vocab, rng))[-1].strip())
