/* The check: whether a program and its documents are safe to execute.

   The kernel trusts its program. `check` is asked before, and when it says 0 the kernel neither reads nor writes
   outside the memory whose sizes `check` was given, stops after finitely many steps, never writes to what is fixed,
   and writes to what threads share only in the update. That holds for every number in that memory, NaN included,
   because no number decides where the kernel reads or writes, but for tables of `which`, which are looked at here.

   It is part of kernel.c, which includes it at its end, because what is safe depends on WIDTH, LANES and `real`.
   Whoever adds a step to the kernel adds its line to FORMS; what letters cannot say is said in check_step.

   Why a few sizes stand for all: every size in a view is `times` tokens plus a number, so where the view ends is
   too; a function of that kind is largest either for one token or for the most, and so is any product of sizes
   that each are. It also grows with the document's place in its chunk, so the last place stands for all. Two
   sizes that agree for one token and for the most agree for all between.

   How far past the end vectors reach: a load begins at a number of a row, or at a whole vector from its begin that
   begins before its end, so it reads at most W - 1 numbers past it; so does a store where a result has room for
   whole vectors. Hence each part of memory must have W numbers after its last: 64 bytes do for all builds.     */

/* What is wrong. `check` gives 100 times a place, plus one of these; the place counts numbers of the program from
   its begin, or where it says so other things. */
enum { SAFE, BAD_HEADER, TOO_SHORT, /* the program is, of the length at that place */
       NO_ROOM,                     /* memory is too small: the place counts the sizes that check was given */
       BAD_VIEW, VIEW_OUTSIDE,      /* a view makes no sense; leaves its part of memory */
       BAD_STEP, BAD_NUMBER,        /* no step of that name, form or length; one of its numbers is none that it may be */
       BAD_SHAPES, BAD_TOGETHER,    /* its views do not fit; cannot be done for all documents together */
       WRITES_THERE,                /* where it may not */
       BAD_REGISTER, NO_SCRATCH, BAD_WHICH, BAD_RESULT, BAD_LANES, BAD_GROWTH, /* not for a last row alone */
       BAD_STARTS, BAD_ORDER, BAD_TOKEN }; /* the place counts documents, their order, tokens */

/* What the program is for. */
enum { TO_TRAIN, TO_MEASURE, TO_SAMPLE }; /* `forward` asks no more than `train` */

/* Numbers in a part of memory, cells times lanes: so few that a `long` of 32 bits counts them. */
#define MOST_NUMBERS ((int64_t)1 << 30)
#define MOST_LONGEST ((int64_t)1 << 20)

typedef struct { int64_t one, most; } size; /* for a document of one token, and for one of the most */

typedef struct {
    const int32_t *head, *views, *body;
    int64_t longest, documents, cells[3]; /* in each part of memory */
    const real *fixed;
    int updating, together, grows; /* grows: it is done for the last row alone, too */
} checked;

static int64_t fault(const checked *p, const int32_t *at, int reason) { return 100 * (int64_t)(at - p->head) + reason; }
static int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }
static int within(int64_t x, int64_t low, int64_t high) { return low <= x && x <= high; }
static int same_size(size a, size b) { return a.one == b.one && a.most == b.most; }
static int64_t largest(size a) { return larger_of(a.one, a.most); }

/* ---- Views ---- */

/* `times` tokens plus a number. What the kernel computes on the way stays small, too. */
static int read_size(const checked *p, const int32_t *at, int64_t low, size *into) {
    int64_t times = at[0], plus = at[1];
    *into = (size){times + plus, times * p->longest + plus};
    return within(times * p->longest, -MOST_NUMBERS, MOST_NUMBERS) && within(plus, -MOST_NUMBERS, MOST_NUMBERS)
        && within(into->one, low, MOST_NUMBERS) && within(into->most, low, MOST_NUMBERS);
}

/* With lanes, documents of different lengths are done as if all were as long as the longest. That is right where
   rows or columns are tokens, all of them, and where nothing else depends on the length: `laned` of a view. */
static int suits_lanes(const int32_t *v) {
    if (v[SHIFT] == BY_LENGTH || (v[SHIFT] == BY_DOCUMENT && v[ROW_TIMES]) || v[FIRST_TIMES]) return 0;
    return (v[ROW_TIMES] == 0 || (v[ROW_TIMES] == 1 && v[ROW_PLUS] == 0))
        && (v[COLUMN_TIMES] == 0 || (v[COLUMN_TIMES] == 1 && v[COLUMN_PLUS] == 0));
}

/* All that moves a view moves it on, so it begins inside when its offset is not negative. */
static int64_t check_view(const checked *p, const int32_t *v) {
    size rows, columns, first;
    if (!within(v[SPACE], 0, 2) || !within(v[SHIFT], STAY, BY_LENGTH) || v[OFFSET] < 0 || v[JUMP] < 0)
        return fault(p, v, BAD_VIEW);
    int64_t cells = p->cells[v[SPACE]], stride = v[STRIDE], last = p->documents - 1;
    if (!read_size(p, v + ROW_TIMES, 1, &rows) || !read_size(p, v + COLUMN_TIMES, 1, &columns)
        || !read_size(p, v + FIRST_TIMES, 0, &first) || !within(stride, largest(columns), cells)
        || !within(v[ROOM], 0, stride))
        return fault(p, v, BAD_VIEW);
    if (L > 1 && !suits_lanes(v)) return fault(p, v, BAD_LANES);
    for (int longest = 0; longest < 2; longest++) {
        int64_t tokens = longest ? p->longest : 1, end = v[OFFSET], row = longest ? first.most : first.one;
        if (v[SHIFT] == BY_ROW) row += last * p->longest;
        if (v[SHIFT] == BY_DOCUMENT) end += last * v[JUMP];
        if (v[SHIFT] == BY_LENGTH) end += tokens * v[JUMP];
        row += (longest ? rows.most : rows.one) - 1;
        end += row * stride + (longest ? columns.most : columns.one);
        if (end > cells) return fault(p, v, VIEW_OUTSIDE);
    }
    return SAFE;
}

/* A view that a step names; none when there is no such view. */
static const int32_t *named(const checked *p, int32_t number) {
    return within(number, 0, p->head[VIEWS] - 1) ? p->views + (int64_t)number * VIEW : 0;
}

/* Together, a view has the rows of all documents of a chunk, or it stays and does not depend on the length. */
static int moves_together(const int32_t *v) {
    if (v[FIRST_TIMES] || v[COLUMN_TIMES]) return 0;
    if (v[SHIFT] == BY_ROW) return v[ROW_TIMES] == 1 && v[ROW_PLUS] == 0 && v[FIRST_PLUS] == 0;
    return v[SHIFT] == STAY && v[ROW_TIMES] == 0;
}

static size rows_of(const checked *p, const int32_t *v) {
    size rows;
    read_size(p, v + ROW_TIMES, 1, &rows);
    if (p->together && v[SHIFT] == BY_ROW) rows.most = p->documents * p->longest;
    return rows;
}

static size columns_of(const checked *p, const int32_t *v) {
    size columns;
    read_size(p, v + COLUMN_TIMES, 1, &columns);
    return columns;
}

/* A text grows by one token at a time, and then a step does the last row alone: so tokens may be the rows of a view,
   but not its columns, where a product would go on through them. `attend` knows how. */
static int suits_growth(const checked *p, const int32_t *v) { return !p->grows || v[COLUMN_TIMES] == 0; }

static int64_t check_use(const checked *p, const int32_t *v, const int32_t *at, int writes) {
    if (p->together && !moves_together(v)) return fault(p, at, BAD_TOGETHER);
    if (p->updating && v[SHIFT] != STAY) return fault(p, at, BAD_TOGETHER); /* there are no documents then */
    if (writes && v[SPACE] != 1 && !(p->updating && v[SPACE] == 0)) return fault(p, at, WRITES_THERE);
    return SAFE;
}

/* ---- Steps on views ---- */

/* What each step takes. Of a view: whether it is written (+), read (-), or read where there is one (?), and its rows
   and columns. A letter is a size, the same wherever it stands in a line; 1 is one, t the document's tokens, V at
   least the tokens that there are. Then the numbers: a flag (f), a slot of `numbers` (s), a whole number (k), a view
   of tokens' places or -1 (w). The last says whether the step may stand in the update, where there are no documents,
   and which several threads do together: then it must do the part that is its thread's. */
static const struct { const char *views, *numbers; int updates; } FORMS[] = {
    [PRODUCT] = {"+ab -ac -cb ?ab", "fff", 0}, /* with a flag, its first or second factor lies transposed */
    [CELLS] = {0, 0, 1},                       /* check_cells */
    [SUM] = {"+a1 -ab", "f", 0},
    [SUM_ROWS] = {"+1b -ab", "f", 0},
    [MAX] = {"+a1 -ab", "f", 0},
    [TOKENS] = {"+ab -Vb", "w", 0},
    [SCATTER] = {"+Vb -ab", "w", 0},
    [TARGETS] = {"+tV", "", 0},
    [TRIU] = {"+ab -ab", "kf", 0},
    [TRANSPOSE] = {"+ab -ba", "f", 0},
    [NORM] = {"+ab -ab +a1", "ss", 0},
    [NORM_BACK] = {"+ab -ab -ab -a1", "sf", 0},
    [SOFTMAX] = {"+ab -ab", "f", 0},
    [SOFTMAX_BACK] = {"+ab -ab -ab", "f", 0},
    [ATTEND] = {"+ad -ab -cb -cd +ac ?ac", "sf", 0},
    [ATTEND_BACK] = {"+ab +cb +cd -ad -ab -cb -cd -ac", "sffff", 0},
    [ZERO] = {"+ab", "", 0},
    [ADAM] = {"+1b +1b +1b +1b", "ssssssss", 1},
};
enum { STEPS = sizeof FORMS / sizeof *FORMS, MOST_VIEWS = 8 };

/* Whether a size is what a letter says; the first time a letter is seen, it says what it then is. */
static int is_size(const checked *p, size found, char letter, size *letters) {
    if (letter == '1') return found.one == 1 && found.most == 1;
    if (letter == 't')
        return same_size(found, (size){1, p->together ? p->documents * p->longest : p->longest});
    if (letter == 'V') return found.one >= p->head[VOCAB] && found.most >= p->head[VOCAB];
    size *known = &letters[letter - 'a'];
    if (known->one == 0) *known = found;
    return same_size(found, *known);
}

static int64_t check_number(const checked *p, int32_t number, char kind) {
    switch (kind) {
    case 'f': return within(number, 0, 1);
    case 's': return within(number, 0, p->head[NUMBERS] - 1);
    case 'k': return within(number, -MOST_NUMBERS, MOST_NUMBERS);
    case 'w': return number == -1 || named(p, number) != 0;
    }
    return 0;
}

/* Numbers that the panel of a product takes, rows times columns of it: where b is copied, `inner` rows of a vector
   or two. */
static int64_t panel(size rows, size columns, size inner, const int32_t *b, int transposed) {
    if (L > 1) return 0; /* in lanes nothing is copied */
    if (!transposed && (largest(rows) < 24 || (int64_t)b[STRIDE] * L <= 2 * W)) return 0;
    return largest(inner) * (largest(columns) * L > W ? 2 * W : W);
}

/* A table of which tokens choose the rows: for each length it lies fixed, one number after another, and each names
   a token of the document. */
static int64_t check_which(const checked *p, const int32_t *at, size chosen) {
    const int32_t *v = named(p, *at);
    if (L > 1) return fault(p, at, BAD_LANES);
    if (p->together || v[SPACE] != 2 || v[STRIDE] != 1 || (v[SHIFT] != STAY && v[SHIFT] != BY_LENGTH)
        || !same_size(rows_of(p, v), chosen))
        return fault(p, at, BAD_WHICH);
    for (int64_t tokens = 1; tokens <= p->longest; tokens++) {
        int64_t rows = v[ROW_TIMES] * tokens + v[ROW_PLUS], first = v[FIRST_TIMES] * tokens + v[FIRST_PLUS];
        const real *place = p->fixed + v[OFFSET] + (v[SHIFT] == BY_LENGTH ? tokens * v[JUMP] : 0) + first;
        for (int64_t i = 0; i < rows; i++)
            if (!(place[i] >= 0 && place[i] < (real)tokens)) return fault(p, at, BAD_WHICH);
    }
    return SAFE;
}

static int64_t check_step(const checked *p, const int32_t *step) {
    const char *form = FORMS[step[0]].views, *numbers = FORMS[step[0]].numbers;
    const int32_t *view[MOST_VIEWS] = {0}, *number = step + 4 + step[3];
    size letters[4] = {{0, 0}};
    int64_t views = step[3], count = (int64_t)step[1] - 4 - views;
    if (!within(views, 1, MOST_VIEWS) || count < 0) return fault(p, step, BAD_STEP);
    for (int64_t i = 0; i <= count; i++) { /* as many as the form has */
        if ((numbers[i] == 0) != (i == count)) return fault(p, step, BAD_STEP);
        if (i < count && !check_number(p, number[i], numbers[i])) return fault(p, number + i, BAD_NUMBER);
    }
    for (int64_t i = 0; i < views; i++, form += form[3] ? 4 : 3) {
        const int32_t *at = step + 4 + i;
        if (form[0] == 0) return fault(p, step, BAD_STEP);
        if (form[0] == '?' && *at == -1) continue;
        view[i] = named(p, *at);
        if (!view[i]) return fault(p, at, BAD_NUMBER);
        if (step[0] != ATTEND && !suits_growth(p, view[i])) return fault(p, at, BAD_GROWTH);
        int64_t wrong = check_use(p, view[i], at, form[0] == '+');
        if (wrong) return wrong;
        int flipped = step[0] == PRODUCT && ((i == 1 && number[0]) || (i == 2 && number[1]));
        if (!is_size(p, rows_of(p, view[i]), form[1 + flipped], letters)
            || !is_size(p, columns_of(p, view[i]), form[2 - flipped], letters))
            return fault(p, at, BAD_SHAPES);
    }
    if (form[0]) return fault(p, step, BAD_STEP);
    size a = letters[0], b = letters[1], c = letters[2], d = letters[3];
    int64_t scratch = 0;
    switch (step[0]) {
    case PRODUCT: scratch = panel(a, b, c, view[2], number[1]); break;
    case TOKENS:
    case SCATTER:
        if (p->grows && view[step[0] == TOKENS][ROW_TIMES]) return fault(p, step, BAD_GROWTH);
        if (number[0] >= 0) return check_which(p, number, a);
        if (!is_size(p, a, 't', letters)) return fault(p, step, BAD_SHAPES);
        break;
    case TARGETS:
        if (p->grows) return fault(p, step, BAD_GROWTH);
        break;
    case ATTEND:
        scratch = larger_of(panel(a, c, b, view[2], 1), panel(a, d, c, view[3], 0));
        if (number[1] && (a.one > c.one || a.most > c.most)) return fault(p, step, BAD_SHAPES); /* up to the diagonal */
        break;
    case ATTEND_BACK:
        scratch = larger_of(larger_of(panel(a, c, d, view[6], 1), panel(a, b, c, view[5], 0)),
                            larger_of(panel(c, b, a, view[4], 0), panel(c, d, a, view[3], 0)));
        scratch += largest(a) * view[7][STRIDE] * L;
        if (number[1] && (a.one > c.one || a.most > c.most)) return fault(p, step, BAD_SHAPES);
        break;
    }
    return scratch <= (int64_t)p->head[SCRATCH] * L ? SAFE : fault(p, step, NO_SCRATCH);
}

/* ---- Functions of cells ---- */

/* How many registers a micro-step reads. */
static const char READS[] = {
    [ADD] = 2, [SUB] = 2, [MUL] = 2, [DIV] = 2, [M_MAX] = 2, [M_MIN] = 2, [GT] = 2, [GE] = 2, [WHERE] = 3,
    [EXP] = 1, [LOG] = 1, [SQRT] = 1, [TANH] = 1, [POW] = 2, [COPY] = 1, [MULADD] = 3,
};
enum { MICROS = sizeof READS };

static int64_t check_cells(const checked *p, const int32_t *step) {
    if (step[1] < 8) return fault(p, step, BAD_STEP);
    int64_t inputs = step[3], numbers = step[4], outputs = step[5], count = step[6], registers = step[7];
    if (!within(inputs, 0, MOST_VIEWS) || !within(numbers, 0, REGISTERS) || !within(outputs, 1, MOST_VIEWS) || count < 0
        || !within(registers, inputs + numbers, REGISTERS - outputs)
        || step[1] != 8 + 2 * inputs + 4 * outputs + numbers + 5 * count)
        return fault(p, step, BAD_STEP);
    const int32_t *in = step + 8, *out = in + 2 * inputs, *number = out + 4 * outputs, *micro = number + numbers;
    int64_t all = registers + outputs, wrong;
    uint64_t known = 0; /* registers that hold something: inputs, numbers, the results' own memory, what was computed */
    for (int64_t i = 0; i < all; i++) known |= (uint64_t)(i < inputs + numbers || i >= registers) << i;
    size rows = {0, 0}, columns = {0, 0};
    for (int64_t i = 0; i < outputs; i++, out += 4) {
        const int32_t *v = named(p, out[0]);
        if (!v || !within(out[2], 0, 1) || !within(out[3], 0, 1) || (out[2] && out[3])) return fault(p, out, BAD_NUMBER);
        if (!suits_growth(p, v)) return fault(p, out, BAD_GROWTH);
        if ((wrong = check_use(p, v, out, 1))) return wrong;
        if (i == 0) rows = rows_of(p, v), columns = columns_of(p, v);
        if (!same_size(rows, rows_of(p, v)) || !same_size(columns, columns_of(p, v))) return fault(p, out, BAD_SHAPES);
        if (out[3] && (largest(columns) * L + W - 1) / W * W > (int64_t)v[ROOM] * L) return fault(p, out, BAD_SHAPES);
    }
    out -= 4 * outputs;
    for (int64_t i = 0; i < inputs; i++, in += 2) {
        const int32_t *v = named(p, in[0]);
        if (!v || !within(in[1], 0, 3)) return fault(p, in, BAD_NUMBER);
        if (!suits_growth(p, v)) return fault(p, in, BAD_GROWTH);
        if ((wrong = check_use(p, v, in, 0))) return wrong;
        if ((!(in[1] & 1) && !same_size(rows, rows_of(p, v))) || (!(in[1] & 2) && !same_size(columns, columns_of(p, v))))
            return fault(p, in, BAD_SHAPES);
    }
    for (int64_t i = 0; i < numbers; i++)
        if (!check_number(p, number[i], 's')) return fault(p, number + i, BAD_NUMBER);
    for (int64_t m = 0; m < count; m++, micro += 5) {
        if (!within(micro[0], 0, MICROS - 1)) return fault(p, micro, BAD_NUMBER);
        for (int64_t k = 0; k < 3; k++) /* the kernel looks where all three lie, and reads those that it needs */
            if (!within(micro[2 + k], 0, all - 1) || (k < READS[micro[0]] && !(known >> micro[2 + k] & 1)))
                return fault(p, micro, BAD_REGISTER);
        if (!within(micro[1], inputs + numbers, all - 1)) return fault(p, micro, BAD_REGISTER);
        if (micro[1] >= registers && !out[4 * (micro[1] - registers) + 3]) return fault(p, micro, BAD_REGISTER);
        known |= (uint64_t)1 << micro[1];
    }
    for (int64_t i = 0; i < outputs; i++)
        if (!within(out[4 * i + 1], 0, all - 1) || !(known >> out[4 * i + 1] & 1)) return fault(p, out + 4 * i, BAD_REGISTER);
    return SAFE;
}

/* ---- The whole ---- */

static int64_t check_header(const int32_t *h, int64_t length) {
    if (length < HEADER) return TOO_SHORT;
    if (h[MAGIC] != 0x6d677074) return 100 * MAGIC + BAD_HEADER;
    for (int i = VIEWS; i < HEADER; i++)
        if (!within((int64_t)h[i] * L, 0, MOST_NUMBERS)) return 100 * i + BAD_HEADER;
    if (h[VIEWS] < 1) return 100 * VIEWS + BAD_HEADER;
    if (!within(h[UPDATE], h[BACKWARD], h[BODY])) return 100 * UPDATE + BAD_HEADER;
    if (!within(h[LONGEST], 1, MOST_LONGEST)) return 100 * LONGEST + BAD_HEADER;
    if (!within(h[CHUNK], 1, MOST_DOCUMENTS)) return 100 * CHUNK + BAD_HEADER;
    if (h[VOCAB] < 1) return 100 * VOCAB + BAD_HEADER;
    if (h[PARAMETERS] > h[OWN] || h[PARAMETERS] % W) return 100 * PARAMETERS + BAD_HEADER; /* gradients come first */
    if ((int64_t)h[NUMBERS] * (h[LONGEST] + 1) > MOST_NUMBERS) return 100 * NUMBERS + BAD_HEADER;
    if (h[RESULT] >= h[VIEWS]) return 100 * RESULT + BAD_HEADER;
    int64_t wanted = HEADER + h[SCALARS] + (int64_t)h[VIEWS] * VIEW + h[BODY];
    if (length < wanted) return 100 * length + TOO_SHORT;
    for (int64_t i = HEADER; i < HEADER + h[SCALARS]; i++)
        if (!within(h[i], 0, h[NUMBERS] - 1)) return 100 * i + BAD_HEADER;
    return SAFE;
}

/* What `measure` and `sample` read of the result, for one document after another. */
static int64_t check_result(const checked *p, int64_t use) {
    if (use == TO_TRAIN) return SAFE;
    const int32_t *at = p->head + RESULT, *v = named(p, *at);
    size letters[4] = {{0, 0}}, columns = columns_of(p, v);
    if (L > 1) return fault(p, at, BAD_LANES);
    if (use == TO_MEASURE) /* what the next token weighs, for each token */
        return is_size(p, rows_of(p, v), 't', letters) && is_size(p, columns, 'V', letters) ? SAFE : fault(p, at, BAD_RESULT);
    return largest(columns) <= p->head[VOCAB] ? SAFE : fault(p, at, BAD_RESULT); /* each column is a token */
}

static int64_t check_program(checked *p) {
    const int32_t *h = p->head;
    int64_t wrong;
    for (int64_t i = 0; i < h[VIEWS]; i++)
        if ((wrong = check_view(p, p->views + i * VIEW))) return wrong;
    int64_t at = 0;
    while (at < h[BODY]) {
        const int32_t *step = p->body + at;
        int64_t left = (at < h[BACKWARD] ? h[BACKWARD] : at < h[UPDATE] ? h[UPDATE] : h[BODY]) - at;
        if (left < 4 || !within(step[0], 0, STEPS - 1) || !within(step[1], 4, left)) return fault(p, step, BAD_STEP);
        p->updating = at >= h[UPDATE];
        p->together = step[2] != 0;
        if (p->updating && !p->together) return fault(p, step, BAD_TOGETHER);
        if (p->updating && !FORMS[step[0]].updates) return fault(p, step, BAD_STEP);
        if ((wrong = step[0] == CELLS ? check_cells(p, step) : check_step(p, step))) return wrong;
        at += step[1];
    }
    p->updating = p->together = 0;
    return SAFE;
}

/* Every document has a token, and one that comes next; so what follows any token but the last is there. */
static int64_t check_documents(const checked *p, const int32_t *tokens, int64_t token_count, const int64_t *starts,
                               int64_t documents, const int32_t *order, int64_t order_count) {
    if (!within(token_count, 0, MOST_NUMBERS) || !within(documents, 0, MOST_NUMBERS) || !within(order_count, 0, MOST_NUMBERS))
        return BAD_STARTS;
    for (int64_t d = 0; d < documents; d++)
        if (!within(starts[d], 0, token_count) || !within(starts[d + 1], starts[d] + 2, token_count))
            return 100 * d + BAD_STARTS;
    for (int64_t i = 0; i < order_count; i++)
        if (!within(order[i], 0, documents - 1)) return 100 * i + BAD_ORDER;
    for (int64_t i = 0; i < token_count; i++)
        if (!within(tokens[i], 0, p->head[VOCAB] - 1)) return 100 * i + BAD_TOKEN;
    return SAFE;
}

/* 0 when the kernel may execute this program, of `length` numbers, on these documents; else what is wrong, and where.

   `shared`, `own` and `fixed` are how many numbers each part of memory has, all lanes and what vectors may touch
   after its last included; `own` is that of one thread. `constants` is the fixed part itself, which must not change
   between the check and the call. `numbers` counts the numbers for each scalar and length.

   `order` is all of the order that a call reads: for `train` steps times batch times lanes, for the others as many
   as they are told, times lanes; `forward` may not be told more than a chunk. Documents
   may be left out (0 of each): then the program alone is checked. For `sample`, `tokens` is the text with `mark` behind
   it: one document. `use` says what the program is for. */
EXPORT int64_t NAME(check)(const int32_t *program, int64_t length, int64_t use, int64_t shared, int64_t own, int64_t fixed,
                           int64_t numbers, const real *constants, const int32_t *tokens, int64_t token_count,
                           const int64_t *starts, int64_t documents, const int32_t *order, int64_t order_count) {
    const int32_t *h = program;
    int64_t wrong = check_header(h, length);
    if (wrong) return wrong;
    if (shared < (int64_t)h[SHARED] * L + W) return 100 * 0 + NO_ROOM;
    if (own < ((int64_t)h[OWN] + h[LONGEST] + 1 + h[SCRATCH]) * L + 2 * W) return 100 * 1 + NO_ROOM;
    if (fixed < (int64_t)h[FIXED] * L + W) return 100 * 2 + NO_ROOM;
    if (numbers < (int64_t)h[NUMBERS] * (h[LONGEST] + 1)) return 100 * 3 + NO_ROOM;
    checked p = {h, h + HEADER + h[SCALARS], 0, h[LONGEST], L > 1 ? 1 : h[CHUNK], {h[SHARED], h[OWN], h[FIXED]}, constants, 0, 0, h[GROWS]};
    p.body = p.views + (int64_t)h[VIEWS] * VIEW;
    if ((wrong = check_program(&p))) return wrong;
    if ((wrong = check_result(&p, use))) return wrong;
    return check_documents(&p, tokens, token_count, starts, documents, order, order_count);
}
