/* The kernel: executes a program for the fast engine, thousands of training steps in one call.

   A program is a list of steps (`product`, `cells`, `attend`, ...) on views, matrices that lie in one of
   three parts of memory; microgpt/engines/program.py writes it and says what each step and view means. The
   kernel allocates nothing, calls nothing, and knows no model.

   It is compiled several times from this one file: WIDTH is the bytes in a vector of the processor (16,
   32 or 64), NAME what its functions are called. A vector is the compiler's own (GNU C, clang), so there
   is no instruction of any one processor in it; as WebAssembly it runs in a browser.

   With LANES above 1, as many as a vector has numbers, each number of each matrix is a vector, which holds one
   number of each of so many runs of the same program: a *cell*. The runs are trained together, each on its own documents, for little
   more than the price of one, because what is done to a vector is done to several of them at once.      */

#include <stdint.h>

#ifndef WIDTH
#define WIDTH 16
#endif
#ifndef LANES
#define LANES 1
#endif
#ifndef NAME
#define NAME(function) function
#endif
#ifdef DOUBLE /* only tests use it: with twice the digits, what differs is a mistake and not a rounding */
typedef double real;
typedef int64_t whole;
#else
typedef float real;
typedef int32_t whole;
#endif

#ifdef DOUBLE
#define COUNT (WIDTH / 8)
#else
#define COUNT (WIDTH / 4)
#endif
#define W ((long)COUNT) /* numbers in a vector */
#define L ((long)LANES)                  /* numbers in a cell: 1 or W */
_Static_assert(LANES == 1 || LANES == COUNT, "a cell is a number or a vector");
typedef real vec __attribute__((vector_size(WIDTH)));
typedef whole ivec __attribute__((vector_size(WIDTH)));
typedef vec loose __attribute__((aligned(sizeof(real)), may_alias)); /* a vector that lies anywhere */

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

INLINE vec load(const real *p) { return *(const loose *)p; }
INLINE void store(real *p, vec v) { *(loose *)p = v; }
INLINE vec splat(real x) { return x - (vec){0}; }
INLINE ivec isplat(whole x) { return x - (ivec){0}; }
INLINE vec choose(ivec c, vec a, vec b) { return (vec)((c & (ivec)a) | (~c & (ivec)b)); }
INLINE vec only(ivec c, vec a) { return (vec)(c & (ivec)a); } /* a or 0, also where a is not a number */
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }
INLINE vec smaller(vec a, vec b) { return choose(a < b, a, b); }
INLINE ivec places(void) { ivec v; UNROLL for (int i = 0; i < (int)(WIDTH / sizeof(real)); i++) v[i] = i; return v; }
INLINE long least(long a, long b) { return a < b ? a : b; }

/* The first n numbers of a vector, in as few pieces as there are. */
INLINE void store_part(real *p, vec v, long n) {
    if (n >= W) { store(p, v); return; }
    real s[COUNT];
    store(s, v);
    const real *from = s;
#define PIECE(size) if (COUNT > size && n & size) { __builtin_memcpy(p, from, size * sizeof(real)); p += size; from += size; }
    PIECE(8) PIECE(4) PIECE(2) PIECE(1)
}

/* A cell, in all of a vector. */
INLINE vec spread(const real *cell) {
#if LANES == 1
    return splat(*cell);
#else
    return load(cell);
#endif
}

/* Which lanes something counts in: all bits of a lane, or none. */
INLINE ivec lanes_in(const whole *cell) {
    ivec v;
    __builtin_memcpy(&v, cell, sizeof v);
    return v;
}

/* The numbers of a vector joined in pairs, pairs of pairs, ..., until every one has the result of all; in lanes
   each stays alone. */
#define FROM(...) __builtin_shufflevector(v, v, __VA_ARGS__)
#if COUNT == 16
#define JOIN_8(join) join(FROM(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
#define JOIN_4(join) join(FROM(4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
#define JOIN_2(join) join(FROM(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
#define JOIN_1(join) join(FROM(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
#elif COUNT == 8
#define JOIN_8(join)
#define JOIN_4(join) join(FROM(4, 5, 6, 7, 0, 1, 2, 3));
#define JOIN_2(join) join(FROM(2, 3, 0, 1, 6, 7, 4, 5));
#define JOIN_1(join) join(FROM(1, 0, 3, 2, 5, 4, 7, 6));
#elif COUNT == 4
#define JOIN_8(join)
#define JOIN_4(join)
#define JOIN_2(join) join(FROM(2, 3, 0, 1));
#define JOIN_1(join) join(FROM(1, 0, 3, 2));
#else
#define JOIN_8(join)
#define JOIN_4(join)
#define JOIN_2(join)
#define JOIN_1(join) join(FROM(1, 0));
#endif
#if LANES == 1
#define JOIN(join) JOIN_8(join) JOIN_4(join) JOIN_2(join) JOIN_1(join)
#else
#define JOIN(join)
#endif

#define SUM_OF(other) v += other
#define LARGER_OF(other) v = larger(other, v)
INLINE vec total(vec v) { JOIN(SUM_OF) return v; }
INLINE vec highest(vec v) { JOIN(LARGER_OF) return v; }

/* ---- Functions of cells ---- */

#ifdef DOUBLE
#define BITS 52
#define BIAS 1023
#define LN2_HIGH 0x1.62e42fefa38p-1
#define LN2_LOW 0x1.ef35793c7673p-45
#define ROUNDER 0x1.8p52
#define LOWEST -745.2
#define TOP 710.0
#define TINY 0x1p-1022
#define ROOT_HALF 0x3fe6a09e667f3bcdLL
#define EXP_TERMS 13
#define LOG_TERMS 10
#else
#define BITS 23
#define BIAS 127
#define LN2_HIGH 0x1.62e4p-1f
#define LN2_LOW 0x1.7f7d1cp-20f
#define ROUNDER 0x1.8p23f
#define LOWEST -104.0f
#define TOP 89.0f
#define TINY 0x1p-126f
#define ROOT_HALF 0x3f3504f3
#define EXP_TERMS 6
#define LOG_TERMS 4
#endif

INLINE vec power_of_two(ivec n) { return (vec)((n + BIAS) << BITS); }

static const real one_over_factorial[] = {
    1, 1, (real)1 / 2, (real)1 / 6, (real)1 / 24, (real)1 / 120, (real)1 / 720, (real)1 / 5040, (real)1 / 40320,
    (real)1 / 362880, (real)1 / 3628800, (real)1 / 39916800, (real)1 / 479001600, (real)1 / 6227020800,
};

/* e^x = 2^n e^r with |r| <= ln 2 / 2, by its series. */
INLINE vec v_exp(vec x) {
    vec in = choose(x == x, x, splat(0)), low = larger(smaller(in, splat(TOP)), splat(LOWEST));
    vec n = (low * (real)1.4426950408889634 + ROUNDER) - ROUNDER;
    vec r = (low - n * LN2_HIGH) - n * LN2_LOW, e = splat(one_over_factorial[EXP_TERMS]);
    UNROLL for (int k = EXP_TERMS - 1; k >= 0; k--) e = e * r + one_over_factorial[k];
    ivec whole_n = __builtin_convertvector(n, ivec), half = whole_n >> 1;
    return choose(x == x, e * power_of_two(half) * power_of_two(whole_n - half), x);
}

/* x = 2^n m with m near 1, and ln m = 2 artanh((m - 1) / (m + 1)), by its series. */
INLINE vec v_log(vec x) {
    ivec small = x < TINY;
    vec scaled = choose(small, x * power_of_two(isplat(BITS + 1)), x);
    ivec bits = (ivec)scaled, n = (bits - ROOT_HALF) >> BITS;
    vec m = (vec)(bits - (n << BITS)), s = (m - 1) / (m + 1), q = s * s, sum = splat((real)1 / (2 * LOG_TERMS + 1));
    UNROLL for (int k = LOG_TERMS; k; k--) sum = sum * q + (real)1 / (2 * k - 1);
    vec count = __builtin_convertvector(n - (small & isplat(BITS + 1)), vec);
    vec result = count * LN2_HIGH + (2 * s * sum + count * LN2_LOW);
    vec infinite = splat((real)__builtin_inf());
    result = choose(x == infinite, x, result);
    result = choose(x == 0, -infinite, result);
    return choose(x >= 0, result, splat((real)__builtin_nan("")));
}

INLINE vec v_sqrt(vec x) {
#if defined(__clang__) && __has_builtin(__builtin_elementwise_sqrt)
    return __builtin_elementwise_sqrt(x);
#else
    UNROLL for (long i = 0; i < W; i++) x[i] = sizeof(real) == 8 ? __builtin_sqrt(x[i]) : __builtin_sqrtf(x[i]);
    return x;
#endif
}

INLINE vec v_tanh(vec x) {
    vec size = choose(x < 0, -x, x), q = x * x;
    vec e = v_exp(-2 * size), large = (1 - e) / (1 + e);
    vec series = x * (1 + q * ((real)-1 / 3 + q * ((real)2 / 15 + q * ((real)-17 / 315 + q * ((real)62 / 2835
        + q * ((real)-1382 / 155925 + q * ((real)21844 / 6081075)))))));
    return choose(size < (real)0.2, series, choose(x < 0, -large, large));
}

INLINE vec v_pow(vec x, vec p) {
    vec size = v_exp(p * v_log(choose(x < 0, -x, x))), low = larger(smaller(p, splat(1e6)), splat(-1e6));
    ivec n = __builtin_convertvector(choose(low == low, low, splat(0)), ivec);
    vec odd = choose((n & 1) != 0, -size, size), integral = __builtin_convertvector(n, vec);
    vec negative = choose(integral == p, odd, splat((real)__builtin_nan("")));
    return choose(p == 0, splat(1), choose(x < 0, negative, size));
}

/* ---- A product of matrices ---- */

enum { ALL, LOWER, LOWER_LEFT, UPPER_LEFT }; /* LOWER: of the product only columns up to the row are wanted;
   LOWER_LEFT, UPPER_LEFT: the left matrix is zero right, or left, of its diagonal */

/* `rows` rows and `vectors` vectors of columns, held in registers while k runs. Where they are few, several k are done
   at once, each for a sum of its own: an addition need not wait for the one before it. */
#define ADD_ONE(rows, vectors, k, part) {                                                                       \
        vec row[vectors];                                                                                       \
        UNROLL for (int j = 0; j < vectors; j++) row[j] = load(b + (k) * b_k + j * b_step);                     \
        ivec in = {0};                                                                                          \
        if (L > 1 && valid) {                                                                                   \
            in = lanes_in(valid + (k) * L);                                                                     \
            UNROLL for (int j = 0; j < vectors; j++) row[j] = only(in, row[j]);                                 \
        }                                                                                                       \
        UNROLL for (int i = 0; i < rows; i++) {                                                                 \
            vec cell = spread(a + i * a_row + (k) * a_k);                                                       \
            if (L > 1 && valid) cell = only(in, cell);                                                          \
            UNROLL for (int j = 0; j < vectors; j++) sum[part][i][j] += cell * row[j];                          \
        }                                                                                                       \
    }
#define TILE(rows, vectors)                                                                                     \
    INLINE void tile_##rows##_##vectors(long inner, const real *a, long a_row, long a_k, const real *b, long b_k, \
                                        long b_step, const real *from, long from_row, real *c, long c_row, long last, \
                                        const whole *valid) {                                                   \
        enum { PARTS = rows * vectors <= 2 ? 4 : rows * vectors <= 4 ? 2 : 1 };                                 \
        vec sum[PARTS][rows][vectors] = {{{{0}}}};                                                              \
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++)                          \
            if (from) sum[0][i][j] = load(from + i * from_row + j * W);                                         \
        long k = 0;                                                                                             \
        for (; k + PARTS <= inner; k += PARTS)                                                                  \
            UNROLL for (int part = 0; part < PARTS; part++) ADD_ONE(rows, vectors, k + part, part)              \
        for (; k < inner; k++) ADD_ONE(rows, vectors, k, 0)                                                     \
        UNROLL for (int part = 1; part < PARTS; part++)                                                         \
            UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++)                      \
                sum[0][i][j] += sum[part][i][j];                                                                \
        UNROLL for (int i = 0; i < rows; i++) {                                                                 \
            UNROLL for (int j = 0; j < vectors - 1; j++) store(c + i * c_row + j * W, sum[0][i][j]);            \
            store_part(c + i * c_row + (vectors - 1) * W, sum[0][i][vectors - 1], last);                        \
        }                                                                                                       \
    }
#if LANES > 1 && (defined(__AVX512VL__) || defined(__aarch64__)) /* there are 32 registers, and not 16 */
#define MOST 4
TILE(4, 4) TILE(3, 4) TILE(2, 4) TILE(1, 4) TILE(4, 3) TILE(3, 3) TILE(2, 3) TILE(1, 3)
#else
#define MOST 2 /* vectors of columns at a time */
#endif
TILE(6, 2) TILE(5, 2) TILE(4, 2) TILE(3, 2) TILE(2, 2) TILE(1, 2)
TILE(8, 1) TILE(7, 1) TILE(6, 1) TILE(5, 1) TILE(4, 1) TILE(3, 1) TILE(2, 1) TILE(1, 1)

/* Neighbours change places, single numbers or as many as the name says. */
INLINE vec change_1(vec v) { JOIN_1(return) }
#if COUNT > 2
INLINE vec change_2(vec v) { JOIN_2(return) }
#endif
#if COUNT > 4
INLINE vec change_4(vec v) { JOIN_4(return) }
#endif
#if COUNT > 8
INLINE vec change_8(vec v) { JOIN_8(return) }
#endif

/* W rows of W numbers, transposed: with 4 numbers in a vector first single numbers change places, then pairs. Of
   the rows only n are there. */
INLINE void turn(const real *from, long from_row, long n, real *to, long to_row) {
    vec rows[COUNT];
    UNROLL for (int r = 0; r < COUNT; r++) rows[r] = load(from + (r < n ? r : 0) * from_row);
#define CHANGE(size)                                                                    \
    UNROLL for (int r = 0; r < COUNT; r++) if (!(r & size)) {                           \
        ivec there = (places() & size) != 0;                                            \
        vec a = rows[r], b = rows[(r | size) % COUNT];                                  \
        rows[r] = choose(there, change_##size(b), a);                                   \
        rows[(r | size) % COUNT] = choose(there, b, change_##size(a));                  \
    }
    CHANGE(1)
#if COUNT > 2
    CHANGE(2)
#endif
#if COUNT > 4
    CHANGE(4)
#endif
#if COUNT > 8
    CHANGE(8)
#endif
    UNROLL for (int r = 0; r < COUNT; r++) store(to + r * to_row, rows[r]);
}

/* Numbers that will be wanted are asked for before. */
INLINE void fetch(const real *p, long n) { for (long k = 0; k < n; k += 64 / (long)sizeof(real)) __builtin_prefetch(p + k); }

/* c (rows x columns) = from + a b. Distances between rows and columns are in numbers, and any; where b's
   columns are not neighbours it is first copied, a panel of two vectors at a time, into `panel`. `valid` has
   for each k which lanes it counts in; none: it counts in all. `spare`: what lies behind a row of c may be
   overwritten, up to a whole vector. */
static void product(long rows, long columns, long inner, const real *a, long a_row, long a_k, const real *b, long b_k,
                    long b_column, const real *from, long from_row, real *c, long c_row, int shape, int spare,
                    real *panel, const whole *valid) {
    columns *= L;
    long step = L > 1 ? b_column : W; /* from one vector of b's columns to the next: they are cells, in lanes */
    int large = rows * columns > 8192; /* it does not stay in the nearest cache */
    int copied = L == 1 && (b_column != 1 || (rows >= 24 && b_k > 2 * W));
    for (long j = 0; j < columns; j += MOST * W) {
        long wide = least(columns - j, MOST * W), vectors = (wide + W - 1) / W, stride = b_k;
        long last = spare ? W : wide - (vectors - 1) * W;
        const real *side = b + j / L * b_column;
        if (copied) {
            stride = vectors * W;
            if (b_column != 1) {
                long k = 0;
                for (; k + W <= inner; k += W)
                    for (long i = 0; i < wide; i += W)
                        turn(side + i * b_column + k * b_k, b_column, wide - i, panel + k * stride + i, stride);
                for (; k < inner; k++)
                    for (long i = 0; i < wide; i++) panel[k * stride + i] = side[i * b_column + k * b_k];
            } else {
                for (long k = 0; k < inner; k++)
                    for (long i = 0; i < stride; i += W) store(panel + k * stride + i, load(side + k * b_k + i));
            }
            side = panel;
        }
        /* as many rows at a time as registers hold, in parts of about the same size */
        static const long most[] = {0, 8, 6, 4, 4};
        long parts = 1, tall = rows, asked = 0;
        if (rows > most[vectors]) parts = (rows + most[vectors] - 1) / most[vectors], tall = (rows + parts - 1) / parts;
        for (long i = shape == LOWER ? j / L / tall * tall : 0; i < rows; i += tall) {
            long now = least(tall, rows - i), first = 0, end = inner;
            if (shape == LOWER_LEFT) end = least(inner, i + now);
            if (shape == UPPER_LEFT) first = least(inner, i);
            const real *left = a + i * a_row + first * a_k, *right = side + first * stride;
            const real *begin = from ? from + i * from_row + j : 0;
            const whole *counts = valid ? valid + first * L : 0;
            real *out = c + i * c_row + j;
            end -= first;
            if (large) { /* what comes next is on its way meanwhile: rows of c, and a part of b's next columns */
                for (long r = now; r < 2 * now; r++) fetch(out + r * c_row, wide);
                for (; asked < inner && asked * parts < inner * (i / tall + 1); asked++)
                    if (b_column == L && j + wide < columns) fetch(b + (j + wide) + asked * b_k, MOST * W);
            }
#define CASE(rows, vectors) case 8 * vectors + rows: \
            tile_##rows##_##vectors(end, left, a_row, a_k, right, stride, step, begin, from_row, out, c_row, last, counts); break;
            switch (8 * vectors + now) {
#if MOST > 2
            CASE(4, 4) CASE(3, 4) CASE(2, 4) CASE(1, 4) CASE(4, 3) CASE(3, 3) CASE(2, 3) CASE(1, 3)
#endif
            CASE(6, 2) CASE(5, 2) CASE(4, 2) CASE(3, 2) CASE(2, 2) CASE(1, 2)
            CASE(8, 1) CASE(7, 1) CASE(6, 1) CASE(5, 1) CASE(4, 1) CASE(3, 1) CASE(2, 1) CASE(1, 1)
            }
        }
    }
}

/* ---- Programs ---- */

enum { MAGIC, VIEWS, BODY, BACKWARD, UPDATE, LONGEST, CHUNK, VOCAB, PARAMETERS, SHARED, OWN, FIXED, SCRATCH, NUMBERS,
       RESULT, SCALARS, GROWS, HEADER };
enum { SPACE, OFFSET, STRIDE, ROW_TIMES, ROW_PLUS, COLUMN_TIMES, COLUMN_PLUS, SHIFT, JUMP, FIRST_TIMES, FIRST_PLUS,
       ROOM, VIEW };
enum { STAY, BY_ROW, BY_DOCUMENT, BY_LENGTH };
enum { PRODUCT, CELLS, SUM, SUM_ROWS, MAX, TOKENS, SCATTER, TARGETS, TRIU, TRANSPOSE, NORM, NORM_BACK, SOFTMAX,
       SOFTMAX_BACK, ATTEND, ATTEND_BACK, ZERO, ADAM };
enum { ADD, SUB, MUL, DIV, M_MAX, M_MIN, GT, GE, WHERE, EXP, LOG, SQRT, TANH, POW, COPY, MULADD };

typedef struct {
    real *at;
    long stride, rows, columns; /* the stride in numbers, rows and columns in cells */
    int spare;                  /* whether what lies behind a row is its own, up to a whole vector */
} matrix;

enum { MOST_DOCUMENTS = 64, MOST_TOKENS = 4096 };

/* What a step sees: the program, its memory, and the documents that are being done. With lanes, one document at a
   time is done in each lane, and they may have different lengths: `tokens_of[0]` is the longest, `lane` has each,
   and `valid` says for each row which lanes' documents have it. What is computed in
   rows that a document does not have is never added to anything. */
typedef struct {
    const int32_t *head, *views, *body;
    real *memory[3], *numbers, *scratch;
    const int32_t *tokens;
    const int64_t *starts;
    long documents, tokens_of[MOST_DOCUMENTS], rows_before[MOST_DOCUMENTS + 1]; /* of the chunk */
    const int32_t *ids[MOST_DOCUMENTS];
    long current, together; /* the document that a step is done for, or all */
    long last; /* of a matrix with rows for tokens only the last row is done: those before are there already */
    long lane[LANES], ragged, slice, slices; /* the part of the update that is done here, of how many */
    whole *valid;
    const int32_t *stop; /* where it is set when no further step shall be begun; 0: nowhere */
} scene;

INLINE int stopped(const int32_t *stop) { return stop && __atomic_load_n(stop, __ATOMIC_RELAXED); }

INLINE matrix rows_of_view(const scene *s, int32_t number, long last) {
    const int32_t *v = s->views + (long)number * VIEW;
    long tokens = s->tokens_of[s->current], offset = v[OFFSET];
    matrix m = {0, v[STRIDE] * L, v[ROW_TIMES] * tokens + v[ROW_PLUS], v[COLUMN_TIMES] * tokens + v[COLUMN_PLUS], 0};
    m.spare = v[ROOM] * L >= (m.columns * L + W - 1) / W * W;
    long first = v[FIRST_TIMES] * tokens + v[FIRST_PLUS];
    if (v[SHIFT] == BY_ROW) {
        if (s->together) m.rows = s->rows_before[s->documents];
        else first += s->rows_before[s->current];
    } else if (v[SHIFT] == BY_DOCUMENT) offset += s->current * v[JUMP];
    else if (v[SHIFT] == BY_LENGTH) offset += tokens * v[JUMP];
    if (last && v[ROW_TIMES]) {
        first += m.rows - 1;
        m.rows = 1;
    }
    m.at = s->memory[v[SPACE]] + (offset + first * v[STRIDE]) * L;
    return m;
}

INLINE matrix view(const scene *s, int32_t number) { return rows_of_view(s, number, s->last); }

INLINE vec scalar(const scene *s, int32_t slot) {
    const real *row = s->numbers + (long)slot * (s->head[LONGEST] + 1);
#if LANES == 1
    return splat(row[s->tokens_of[s->current]]);
#else
    vec cell;
    for (long l = 0; l < L; l++) cell[l] = row[s->lane[l]];
    return cell;
#endif
}

/* Which lanes each token counts in, where a view's rows or columns are tokens. */
INLINE const whole *counts(const scene *s, int32_t view, int times) {
    return L > 1 && s->ragged && s->views[(long)view * VIEW + times] ? s->valid : 0;
}

/* ---- Steps ---- */

enum { STRIP = 256, REGISTERS = 64 };

static void cells(const scene *s, const int32_t *step) {
    long inputs = step[3], numbers = step[4], outputs = step[5], count = step[6], registers = step[7];
    const int32_t *in = step + 8, *out = in + 2 * inputs, *number = out + 4 * outputs, *micro = number + numbers;
    real strips[REGISTERS][STRIP] __attribute__((aligned(64)));
    real *at[REGISTERS];
    matrix source[8], target[8];
    for (long i = 0; i < inputs; i++) source[i] = view(s, in[2 * i]);
    for (long i = 0; i < outputs; i++) target[i] = view(s, out[4 * i]);
    long rows = target[0].rows, columns = target[0].columns * L, even = 1;
    const whole *valid[8];
    for (long i = 0; i < outputs; i++) /* tokens add to a weight: those that are there */
        valid[i] = s->views[(long)out[4 * i] * VIEW + SHIFT] == STAY ? counts(s, out[4 * i], ROW_TIMES) : 0;
    for (long i = 0; i < inputs; i++) even &= in[2 * i + 1] == 0 && source[i].stride == target[0].stride;
    for (long i = 0; i < outputs; i++) even &= out[4 * i + 3] && target[i].stride == target[0].stride;
    if (even && rows > 1) { columns = (rows - 1) * target[0].stride + columns; rows = 1; } /* no gaps: one long row */
    long begin = 0;
    if (s->slices > 1) { /* a thread's part of the update */
        long part = (columns / s->slices + W - 1) / W * W;
        begin = least(columns, part * s->slice);
        columns = s->slice + 1 == s->slices ? columns : least(columns, begin + part);
    }
    long fill = least(columns, STRIP);
    for (long i = 0; i < numbers; i++) {
        vec x = scalar(s, number[i]);
        for (long k = 0; k < fill; k += W) store(strips[inputs + i] + k, x);
    }
    for (long i = 0; i < registers; i++) at[i] = strips[i];
    for (long r = 0; r < rows; r++)
        for (long c = begin; c < columns; c += STRIP) {
            long n = least(columns - c, STRIP);
            for (long i = 0; i < inputs; i++) {
                const real *from = source[i].at + (in[2 * i + 1] & 1 ? 0 : r * source[i].stride);
                if (in[2 * i + 1] & 2) { /* one number for the whole row */
                    vec x = spread(from);
                    for (long k = 0; k < n; k += W) store(strips[i] + k, x);
                } else at[i] = (real *)from + c;
            }
            for (long i = 0; i < outputs; i++) at[registers + i] = target[i].at + r * target[i].stride + c;
            for (const int32_t *m = micro, *end = micro + 5 * count; m < end; m += 5) {
                real *d = at[m[1]];
                const real *x = at[m[2]], *y = at[m[3]], *z = at[m[4]];
#define EACH(what) for (long k = 0; k < n; k += W) { vec a = load(x + k), b = load(y + k); (void)b; store(d + k, what); } break;
                switch (m[0]) {
                case ADD: EACH(a + b)
                case SUB: EACH(a - b)
                case MUL: EACH(a * b)
                case DIV: EACH(a / b)
                case M_MAX: EACH(choose(b > a, b, a))
                case M_MIN: EACH(choose(b < a, b, a))
                case GT: EACH(choose(a > b, splat(1), splat(0)))
                case GE: EACH(choose(a >= b, splat(1), splat(0)))
                case WHERE: EACH(choose(a != 0, b, load(z + k)))
                case EXP: EACH(v_exp(a))
                case LOG: EACH(v_log(a))
                case SQRT: EACH(v_sqrt(a))
                case TANH: EACH(v_tanh(a))
                case POW: EACH(v_pow(a, b))
                case COPY: EACH(a)
                case MULADD: EACH(a * b + load(z + k))
                }
            }
            for (long i = 0; i < outputs; i++) {
                real *to = at[registers + i];
                const real *from = at[out[4 * i + 1]];
                if (from == to) continue; /* written as it came */
                if (out[4 * i + 2]) {
                    ivec in = valid[i] ? lanes_in(valid[i] + r * L) : isplat(-1);
                    for (long k = 0; k < n; k += W) store_part(to + k, load(to + k) + only(in, load(from + k)), n - k);
                } else if (out[4 * i + 3]) for (long k = 0; k < n; k += W) store(to + k, load(from + k));
                else for (long k = 0; k < n; k += W) store_part(to + k, load(from + k), n - k);
            }
        }
}

INLINE void clear(real *p, long n) {
    long k = 0;
    for (; k + W <= n; k += W) store(p + k, splat(0));
    for (; k < n; k++) p[k] = 0;
}

INLINE void put(real *p, vec v, long n, int more) { store_part(p, more ? load(p) + v : v, n); }

/* A vector of a row of n numbers from k on, with `other` where the row has ended or where the token of a column
   does not count. */
INLINE vec part(const real *x, long k, long n, vec other, const whole *valid) {
    vec v = load(x + k);
    if (k + W > n) v = choose(places() < isplat((whole)(n - k)), v, other);
    if (L > 1 && valid) v = choose(lanes_in(valid + k), v, other);
    return v;
}

INLINE vec row_sum(const real *x, long n, const whole *valid) {
    vec s = splat(0);
    for (long k = 0; k < n; k += W) s += part(x, k, n, splat(0), valid);
    return total(s);
}

INLINE vec row_dot(const real *x, const real *y, long n, const whole *valid) {
    vec s = splat(0);
    for (long k = 0; k < n; k += W) s += part(x, k, n, splat(0), valid) * part(y, k, n, splat(0), valid);
    return total(s);
}

INLINE vec row_max(const real *x, long n, const whole *valid) {
    vec low = splat(-(real)__builtin_inf()), s = low;
    for (long k = 0; k < n; k += W) s = larger(part(x, k, n, low, valid), s);
    return highest(s);
}

/* The first n numbers of a vector; the others, too, when there is room for them. */
INLINE void store_row(real *p, vec v, long n, int spare) {
    if (spare) store(p, v);
    else store_part(p, v, n);
}

/* y = softmax(scale x + bias) over a row of n numbers, and 0 from its end to that of a vector when there is room; 0 in
   the lanes whose document does not have the row, since all that it could read may be missing there. */
INLINE void softmax_row(real *y, const real *x, vec scale, const real *bias, long n, const whole *valid, const whole *here,
                        int spare) {
    vec low = splat(-(real)__builtin_inf()), high = low, sum = splat(0);
    if (n <= W && L == 1) { /* as most rows of a small model are: it stays in registers */
        vec z = load(x) * scale;
        if (bias) z += load(bias);
        z = choose(places() < isplat((whole)n), z, low);
        z = v_exp(z - highest(z));
        store_row(y, z / total(z), n, spare);
        return;
    }
    for (long k = 0; k < n; k += W) {
        vec z = load(x + k) * scale;
        if (bias) z += load(bias + k);
        if (k + W > n) z = choose(places() < isplat((whole)(n - k)), z, low);
        if (L > 1 && valid) z = choose(lanes_in(valid + k), z, low);
        store_row(y + k, z, n - k, spare);
        high = larger(z, high);
    }
    vec top = highest(high);
    for (long k = 0; k < n; k += W) {
        vec e = v_exp((spare ? load(y + k) : part(y, k, n, low, 0)) - top);
        store_row(y + k, e, n - k, spare);
        sum += e;
    }
    vec inverse = 1 / total(sum);
    ivec in = L > 1 && here ? lanes_in(here) : isplat(-1);
    for (long k = 0; k < n; k += W) store_row(y + k, only(in, load(y + k) * inverse), n - k, spare);
}

static void attend(const scene *s, const int32_t *v) {
    matrix o = view(s, v[0]), q = view(s, v[1]), p = view(s, v[4]), bias = {0};
    matrix k = rows_of_view(s, v[2], 0), x = rows_of_view(s, v[3], 0); /* a last row, too, reads all before it */
    if (v[5] >= 0) bias = view(s, v[5]);
    vec scale = scalar(s, v[6]);
    if (s->last) { /* one row, so there is nothing that a product could share out */
        for (long t = 0; t < k.rows; t++) p.at[t] = row_dot(q.at, k.at + t * k.stride, q.columns, 0)[0];
        softmax_row(p.at, p.at, scale, bias.at, k.rows, 0, 0, p.spare);
        for (long c = 0; c < x.columns; c += W) {
            vec sum = splat(0);
            for (long t = 0; t < k.rows; t++) sum += splat(p.at[t]) * load(x.at + t * x.stride + c);
            put(o.at + c, sum, x.columns - c, 0);
        }
        return;
    }
    int causal = v[7];
    const whole *valid = causal ? 0 : counts(s, v[4], COLUMN_TIMES);
    product(q.rows, k.rows, q.columns, q.at, q.stride, L, k.at, L, k.stride, 0, 0, p.at, p.stride, causal ? LOWER : ALL,
            p.spare, s->scratch, 0);
    for (long i = 0; i < p.rows; i++) {
        real *row = p.at + i * p.stride;
        long n = causal ? i + 1 : p.columns;
        softmax_row(row, row, scale, bias.at ? bias.at + i * bias.stride : 0, n * L, valid, valid ? valid + i * L : 0, p.spare);
        if (p.spare) n = (n * L + W - 1) / W * W / L;
        if (n < p.columns) clear(row + n * L, (p.columns - n) * L);
    }
    product(p.rows, x.columns, p.columns, p.at, p.stride, L, x.at, x.stride, L, 0, 0, o.at, o.stride,
            causal ? LOWER_LEFT : ALL, o.spare, s->scratch, 0);
}

static void attend_back(const scene *s, const int32_t *v) {
    matrix gq = view(s, v[0]), gk = view(s, v[1]), gx = view(s, v[2]), g = view(s, v[3]);
    matrix q = view(s, v[4]), k = view(s, v[5]), x = view(s, v[6]), p = view(s, v[7]);
    vec scale = scalar(s, v[8]);
    real *gs = s->scratch, *panel = gs + p.rows * p.stride;
    int causal = v[9], more_q = v[10], more_k = v[11], more_x = v[12];
    const whole *valid = counts(s, v[7], COLUMN_TIMES);
    product(g.rows, x.rows, g.columns, g.at, g.stride, L, x.at, L, x.stride, 0, 0, gs, p.stride, causal ? LOWER : ALL,
            p.spare, panel, 0);
    for (long i = 0; i < p.rows; i++) { /* through the softmax, to the scores */
        real *row = gs + i * p.stride, *weight = p.at + i * p.stride;
        long n = (causal ? i + 1 : p.columns) * L;
        if (L == 1 && p.columns <= W && p.spare) { /* a row is a vector */
            ivec in = places() < isplat((whole)n);
            vec slope = only(in, load(row)), weighs = only(in, load(weight));
            store(row, weighs * (slope - total(slope * weighs)) * scale);
            continue;
        }
        vec mean = row_dot(row, weight, n, causal ? 0 : valid);
        for (long c = 0; c < n; c += W) put(row + c, load(weight + c) * (load(row + c) - mean) * scale, n - c, 0);
        clear(row + n, p.columns * L - n);
    }
    product(gq.rows, gq.columns, p.columns, gs, p.stride, L, k.at, k.stride, L, more_q ? gq.at : 0, gq.stride, gq.at,
            gq.stride, causal ? LOWER_LEFT : ALL, gq.spare, panel, causal ? 0 : valid);
    product(gk.rows, gk.columns, p.rows, gs, L, p.stride, q.at, q.stride, L, more_k ? gk.at : 0, gk.stride, gk.at,
            gk.stride, causal ? UPPER_LEFT : ALL, gk.spare, panel, valid);
    product(gx.rows, gx.columns, p.rows, p.at, L, p.stride, g.at, g.stride, L, more_x ? gx.at : 0, gx.stride, gx.at,
            gx.stride, causal ? UPPER_LEFT : ALL, gx.spare, panel, valid);
}

/* The update of the file's `adam`, as one: m and v are means of the gradient g and of its square, and w moves by
   rate m / (sqrt(v) + eps), both means made up for their start at zero. */
static void adam(const scene *s, const int32_t *v) {
    matrix w = view(s, v[0]), g = view(s, v[1]), m = view(s, v[2]), u = view(s, v[3]);
    const int32_t *slot = v + 4;
    vec keep1 = scalar(s, slot[0]), new1 = scalar(s, slot[1]), keep2 = scalar(s, slot[2]), new2 = scalar(s, slot[3]);
    vec up1 = scalar(s, slot[4]), up2 = scalar(s, slot[5]), eps = scalar(s, slot[6]), rate = scalar(s, slot[7]) * up1;
    long n = w.columns * L, part = s->slices > 1 ? (n / s->slices + W - 1) / W * W : n, at = least(n, part * s->slice);
    long end = s->slice + 1 >= s->slices ? n : least(n, at + part);
    for (; at < end; at += W) {
        vec slope = load(g.at + at);
        vec mean = load(m.at + at) * keep1 + slope * new1, square = load(u.at + at) * keep2 + slope * slope * new2;
        store(m.at + at, mean);
        store(u.at + at, square);
        store(w.at + at, load(w.at + at) - rate * mean / (v_sqrt(square * up2) + eps));
        store(g.at + at, splat(0));
    }
}

/* The token that chooses a row: the document's own, in order or as `which` says. Rows that a document does not have
   are those of token 0. */
INLINE long chosen(const scene *s, const matrix *which, long document, long i) {
    if (L > 1 && i >= s->lane[document]) return 0;
    return s->ids[document][which->at ? (long)which->at[i] : i];
}

static void choose_rows(const scene *s, const int32_t *step) {
    const int32_t *v = step + 4, *more = v + step[3];
    int back = step[0] == SCATTER;
    matrix rows = view(s, v[back]), table = view(s, v[!back]), which = {0};
    long first = s->together ? 0 : s->current, last = s->together ? s->documents : s->current + 1, r = 0;
    if (more[0] >= 0) which = view(s, more[0]);
    int all = !which.at; /* tokens choose, in order */
    for (long d = first; d < last; d++)
        for (long n = s->together || all ? s->tokens_of[d] : rows.rows, i = s->last && all ? n - 1 : 0; i < n; i++, r++) {
#if LANES == 1
            real *row = rows.at + r * rows.stride, *entry = table.at + chosen(s, &which, d, i) * table.stride;
            for (long c = 0; c < rows.columns; c += W)
                if (back) put(entry + c, load(row + c), rows.columns - c, 1);
                else put(row + c, load(entry + c), rows.columns - c, 0);
#else
            for (long l = 0; l < L; l++) {
                real *row = rows.at + r * rows.stride + l, *entry = table.at + chosen(s, &which, l, i) * table.stride + l;
                if (!back) for (long c = 0; c < rows.columns; c++) row[c * L] = entry[c * L];
                else if (i < s->lane[l]) for (long c = 0; c < rows.columns; c++) entry[c * L] += row[c * L];
            }
#endif
        }
}

static void targets(const scene *s, matrix y) {
    long first = s->together ? 0 : s->current, last = s->together ? s->documents : s->current + 1, r = 0;
    for (long d = first; d < last; d++)
        for (long i = 0; i < s->tokens_of[d]; i++, r++) {
            clear(y.at + r * y.stride, y.columns * L);
            if (L == 1) y.at[r * y.stride + s->ids[d][i + 1]] = 1;
            else for (long l = 0; l < L; l++) if (i < s->lane[l]) y.at[r * y.stride + s->ids[l][i + 1] * L + l] = 1;
        }
}

static void one(const scene *s, const int32_t *step) {
    const int32_t *v = step + 4, *more = v + step[3];
    matrix y = view(s, v[0]);
    switch (step[0]) {
    case PRODUCT: {
        matrix a = view(s, v[1]), b = view(s, v[2]), d = {0};
        int ta = more[0], tb = more[1];
        if (v[3] >= 0) d = view(s, v[3]);
        if (more[2]) d = y;
        product(y.rows, y.columns, ta ? a.rows : a.columns, a.at, ta ? L : a.stride, ta ? a.stride : L, b.at,
                tb ? L : b.stride, tb ? b.stride : L, d.at, d.stride, y.at, y.stride, ALL, y.spare, s->scratch,
                counts(s, v[1], ta ? ROW_TIMES : COLUMN_TIMES));
        break;
    }
    case SUM: {
        matrix x = view(s, v[1]);
        for (long r = 0; r < y.rows; r++)
            put(y.at + r * y.stride, row_sum(x.at + r * x.stride, x.columns * L, counts(s, v[1], COLUMN_TIMES)), L, more[0]);
        break;
    }
    case SUM_ROWS: {
        matrix x = view(s, v[1]);
        const whole *valid = counts(s, v[1], ROW_TIMES);
        if (!more[0]) clear(y.at, y.columns * L);
        for (long r = 0; r < x.rows; r++) {
            ivec in = valid ? lanes_in(valid + r * L) : isplat(-1);
            for (long c = 0; c < x.columns * L; c += W) put(y.at + c, only(in, load(x.at + r * x.stride + c)), x.columns * L - c, 1);
        }
        break;
    }
    case MAX: {
        matrix x = view(s, v[1]);
        for (long r = 0; r < y.rows; r++)
            put(y.at + r * y.stride, row_max(x.at + r * x.stride, x.columns * L, counts(s, v[1], COLUMN_TIMES)), L, 0);
        break;
    }
    case TOKENS:
    case SCATTER: choose_rows(s, step); break;
    case TARGETS: targets(s, y); break;
    case TRIU: {
        matrix x = view(s, v[1]);
        for (long r = 0; r < y.rows; r++)
            for (long c = 0; c < y.columns * L; c++) {
                real number = c / L >= r + more[0] ? x.at[r * x.stride + c] : 0, *to = y.at + r * y.stride + c;
                *to = more[1] ? *to + number : number;
            }
        break;
    }
    case TRANSPOSE: {
        matrix x = view(s, v[1]);
        for (long r = 0; r < y.rows; r++)
            for (long c = 0; c < y.columns * L; c++) {
                real number = x.at[c / L * x.stride + r * L + c % L], *to = y.at + r * y.stride + c;
                *to = more[0] ? *to + number : number;
            }
        break;
    }
    case NORM: {
        matrix x = view(s, v[1]), root = view(s, v[2]);
        vec scale = scalar(s, more[0]), plus = scalar(s, more[1]);
        long n = x.columns * L;
        for (long r = 0; r < y.rows; r++) {
            const real *from = x.at + r * x.stride;
            vec by = 1 / v_sqrt(row_dot(from, from, n, counts(s, v[1], COLUMN_TIMES)) * scale + plus);
            put(root.at + r * root.stride, by, L, 0);
            for (long c = 0; c < n; c += W) put(y.at + r * y.stride + c, load(from + c) * by, n - c, 0);
        }
        break;
    }
    case NORM_BACK: {
        matrix g = view(s, v[1]), x = view(s, v[2]), root = view(s, v[3]);
        vec scale = scalar(s, more[0]);
        long n = g.columns * L;
        for (long r = 0; r < g.rows; r++) {
            const real *from = x.at + r * x.stride, *slope = g.at + r * g.stride;
            vec by = spread(root.at + r * root.stride);
            vec pull = row_dot(slope, from, n, counts(s, v[1], COLUMN_TIMES)) * by * by * by * scale;
            for (long c = 0; c < n; c += W)
                put(y.at + r * y.stride + c, load(slope + c) * by - load(from + c) * pull, n - c, more[1]);
        }
        break;
    }
    case SOFTMAX: {
        matrix x = view(s, v[1]);
        const whole *here = counts(s, v[1], ROW_TIMES);
        for (long r = 0; r < y.rows; r++)
            softmax_row(y.at + r * y.stride, x.at + r * x.stride, splat(1), 0, y.columns * L, counts(s, v[1], COLUMN_TIMES),
                        here ? here + r * L : 0, y.spare);
        break;
    }
    case SOFTMAX_BACK: {
        matrix g = view(s, v[1]), p = view(s, v[2]);
        long n = g.columns * L;
        for (long r = 0; r < g.rows; r++) {
            const real *weight = p.at + r * p.stride, *slope = g.at + r * g.stride;
            vec mean = row_dot(slope, weight, n, counts(s, v[1], COLUMN_TIMES));
            for (long c = 0; c < n; c += W)
                put(y.at + r * y.stride + c, load(weight + c) * (load(slope + c) - mean), n - c, more[0]);
        }
        break;
    }
    case ATTEND: attend(s, v); break;
    case ATTEND_BACK: attend_back(s, v); break;
    case ADAM: adam(s, v); break;
    case ZERO:
        for (long r = 0; r < y.rows; r++) clear(y.at + r * y.stride, y.columns * L);
        break;
    }
}

/* The steps from `first` to `end`, for all documents of the chunk, or fewer when they shall stop. */
static void perform(scene *s, long first, long end) {
    for (long at = first; at < end && !stopped(s->stop); at += s->body[at + 1]) {
        const int32_t *step = s->body + at;
        s->together = step[2];
        long documents = s->together ? 1 : s->documents;
        for (s->current = 0; s->current < documents; s->current++)
            if (step[0] == CELLS) cells(s, step);
            else one(s, step);
    }
    s->current = s->together = 0;
}

static scene opened(const int32_t *program, real *shared, real *own, real *fixed, real *numbers,
                    const int32_t *tokens, const int64_t *starts) {
    scene s = {0};
    s.head = program;
    s.views = program + HEADER + program[SCALARS];
    s.body = s.views + (long)program[VIEWS] * VIEW;
    s.memory[0] = shared;
    s.memory[1] = own;
    s.memory[2] = fixed;
    s.numbers = numbers;
    s.valid = (whole *)(own + (long)program[OWN] * L);
    s.scratch = own + ((long)program[OWN] + (long)program[LONGEST] + 1) * L + W;
    s.tokens = tokens;
    s.starts = starts;
    return s;
}

/* `count` documents, one after another; with lanes, one for each. */
static void choose_documents(scene *s, const int32_t *order, long count, long longest) {
    s->documents = L > 1 ? 1 : count;
    s->rows_before[0] = 0;
    s->tokens_of[0] = 0;
    for (long d = 0; d < (L > 1 ? L : count); d++) {
        long first = s->starts[order[d]], length = least(s->starts[order[d] + 1] - first - 1, longest);
        s->ids[d] = s->tokens + first;
        if (L > 1) {
            s->lane[d] = length;
            if (length > s->tokens_of[0]) s->tokens_of[0] = length;
        } else {
            s->tokens_of[d] = length;
            s->rows_before[d + 1] = s->rows_before[d] + length;
        }
    }
    if (L > 1) {
        s->rows_before[1] = s->tokens_of[0];
        s->ragged = 0;
        for (long l = 0; l < L; l++) s->ragged |= s->lane[l] != s->tokens_of[0];
        for (long r = 0; s->ragged && r < s->tokens_of[0]; r++)
            for (long l = 0; l < L; l++) s->valid[r * L + l] = -(r < s->lane[l]);
    }
}

/* The steps of the way there, for `count` documents, no more than a chunk; the result stays in memory. */
EXPORT int64_t NAME(forward)(const int32_t *program, real *shared, real *own, real *fixed, real *numbers, const int32_t *tokens,
                             const int64_t *starts, const int32_t *order, int64_t count) {
    scene s = opened(program, shared, own, fixed, numbers, tokens, starts);
    choose_documents(&s, order, count, program[LONGEST]);
    perform(&s, 0, program[BACKWARD]);
    return 0;
}

/* The surprise at every token of `count` documents, added up: the program's result has for each token a row of
   what each next token weighs. Gives the number of tokens, or -1 - those before it when `stop` was set. */
EXPORT int64_t NAME(measure)(const int32_t *program, real *shared, real *own, real *fixed, real *numbers, const int32_t *tokens,
                             const int64_t *starts, const int32_t *order, int64_t count, double *surprise,
                             const int32_t *stop) {
    scene s = opened(program, shared, own, fixed, numbers, tokens, starts);
    long chunk = program[CHUNK], seen = 0;
    double sum = 0;
    s.stop = stop;
    for (long i = 0; i < count; i += chunk) {
        choose_documents(&s, order + i, least(chunk, count - i), program[LONGEST]);
        perform(&s, 0, program[BACKWARD]);
        if (stopped(stop)) return -1 - seen;
        for (s.current = 0; s.current < s.documents; s.current++) {
            matrix p = view(&s, program[RESULT]);
            for (long r = 0; r < p.rows; r++, seen++) {
                const real *row = p.at + r * p.stride;
                sum -= v_log(splat(row[s.ids[s.current][r + 1]]) / row_sum(row, p.columns, 0) + (real)1e-30)[0];
            }
        }
        s.current = 0;
    }
    *surprise = sum;
    return seen;
}

/* Go on with a text, several times: `ids` has room for `most` tokens and one more for each of `texts` texts, and the
   first `count` of them are there in the first. The last row of the program's result has a weight for each next
   token; which one is drawn is decided by `chances`, numbers from 0 to 1, one for each. A text ends after `mark`;
   `lengths` takes how many tokens each then has. Gives how many were drawn, or -1 when `stop` was set. */
EXPORT int64_t NAME(sample)(const int32_t *program, real *shared, real *own, real *fixed, real *numbers, int32_t *ids,
                            int64_t count, int64_t most, int32_t mark, const double *chances, int64_t texts,
                            int64_t *lengths, const int32_t *stop) {
    int64_t starts[2] = {0, 0}, drawn = 0;
    int32_t order = 0, *begin = ids;
    scene s = opened(program, shared, own, fixed, numbers, ids, starts);
    s.stop = stop;
    for (long text = 0; text < texts; text++, ids += most + 1) {
        for (long i = 0; i < count; i++) ids[i] = begin[i];
        s.tokens = ids;
        int64_t n = count;
        while (n < most) {
            s.last = program[GROWS] && (text || n > count);
            ids[n] = mark; /* something must come next */
            starts[1] = n + 1;
            choose_documents(&s, &order, 1, program[LONGEST]);
            perform(&s, 0, program[BACKWARD]);
            if (stopped(stop)) return -1;
            matrix p = view(&s, program[RESULT]);
            const real *row = p.at + (p.rows - 1) * p.stride;
            double all = 0, part = 0;
            for (long c = 0; c < p.columns; c++) all += row[c];
            all *= chances[drawn++];
            long c = 0;
            for (; c < p.columns - 1; c++) { /* as Python's random.choices */
                part += row[c];
                if (part > all) break;
            }
            ids[n++] = (int32_t)c;
            if (c == mark) break;
        }
        lengths[text] = n;
    }
    return drawn;
}

/* The number of the first step that makes numbers that are none, or too large, of `count` documents, or -1. That a
   number is -infinity need not be wrong: a mask is made of such. So the last step that made one is only given when
   no other is found. */
EXPORT int64_t NAME(first_bad)(const int32_t *program, real *shared, real *own, real *fixed, real *numbers,
                               const int32_t *tokens, const int64_t *starts, const int32_t *order, int64_t count) {
    scene s = opened(program, shared, own, fixed, numbers, tokens, starts);
    long chunk = L > 1 ? 1 : program[CHUNK], bad = -1, low = -1;
    for (long i = 0; i < count && bad < 0; i += chunk) {
        choose_documents(&s, order + i * L, least(chunk, count - i), program[LONGEST]);
        for (long at = 0, number = 0; at < program[UPDATE] && bad < 0; at += s.body[at + 1], number++) {
            const int32_t *step = s.body + at;
            long results = step[0] == CELLS ? step[5] : step[0] == ATTEND_BACK ? 3 : 1;
            perform(&s, at, at + step[1]);
            s.together = step[2];
            for (s.current = 0; s.current < (s.together ? 1 : s.documents); s.current++)
                for (long k = 0; k < results; k++) {
                    matrix y = view(&s, step[0] == CELLS ? step[8 + 2 * step[3] + 4 * k] : step[4 + k]);
                    for (long r = 0; r < y.rows; r++)
                        for (long c = 0; c < y.columns * L; c++)
                        {
                            real x = y.at[r * y.stride + c];
                            if (!(x < (real)__builtin_inf())) bad = number;
                            else if (x == -(real)__builtin_inf()) low = number;
                        }
                }
            s.current = s.together = 0;
        }
    }
    clear(own, (long)program[PARAMETERS] * L);
    return bad < 0 ? low : bad;
}

/* Threads that train together meet here: the last to come lets all go on. Who has waited for long lets others have
   the processor, by calling `rest`, where there is one. */
typedef struct { int32_t here, round; } meeting;
enum { PATIENCE = 4096 };

static void meet(meeting *m, long ranks, int (*rest)(void)) {
    if (ranks == 1) return;
    int32_t round = __atomic_load_n(&m->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&m->here, 1, __ATOMIC_ACQ_REL) == ranks) {
        __atomic_store_n(&m->here, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&m->round, round + 1, __ATOMIC_RELEASE);
    } else for (long waited = 0; __atomic_load_n(&m->round, __ATOMIC_ACQUIRE) == round; waited++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
        if (rest && waited > PATIENCE) rest();
    }
}

/* Train from step `first` to step `end`. `order` has for each step its documents, `batch` of them; with lanes, for
   each of these one for each lane. `scalars` has the numbers that each step sets anew, `losses` takes one number for
   each step and lane. Gives how many steps were done: fewer when `stop` was set, or when a loss was no longer a
   finite number, which is then the last of `losses`; the weights are those before that step.

   `ranks` threads may call this together, each with its `rank`, for the same memory: each does a part of the
   documents with an `own` of its own (all of `own_size` numbers, one after another), and then a part of the update. */
EXPORT int64_t NAME(train)(const int32_t *program, real *shared, real *own, real *fixed, real *numbers, const int32_t *tokens,
                           const int64_t *starts, const int32_t *order, int64_t first, int64_t end, int64_t batch,
                           const double *scalars, double *losses, const int32_t *stop, int64_t rank,
                           int64_t ranks, int64_t own_size, meeting *meetings, double *partial, int (*rest)(void)) {
    scene s = opened(program, shared, own + rank * own_size, fixed, numbers, tokens, starts);
    long chunk = L > 1 ? 1 : program[CHUNK], longest = program[LONGEST], parameters = (long)program[PARAMETERS] * L;
    long from = batch * rank / ranks, to = batch * (rank + 1) / ranks;
    for (long step = first; step < end; step++) {
        double loss[LANES] = {0};
        long ended = 0;
        s.stop = stop;
        for (long i = from; i < to && !ended; i += chunk) {
            choose_documents(&s, order + ((step - first) * batch + i) * L, least(chunk, to - i), longest);
            perform(&s, 0, program[UPDATE]);
            ended = stopped(stop);
            for (s.current = 0; s.current < s.documents; s.current++)
                for (long l = 0; l < L; l++) loss[l] += view(&s, program[RESULT]).at[l];
            s.current = 0;
        }
        for (long l = 0; l < L; l++) partial[rank * (L + 1) + l] = loss[l];
        partial[rank * (L + 1) + L] = (double)ended;
        meet(meetings, ranks, rest);
        ended = 0;
        for (long r = 0; r < ranks; r++) ended |= partial[r * (L + 1) + L] != 0;
        for (long l = 0; l < L; l++) {
            loss[l] = 0;
            for (long r = 0; r < ranks; r++) loss[l] += partial[r * (L + 1) + l];
            if (!ended && !rank) losses[(step - first) * L + l] = loss[l];
        }
        long finite = 1;
        for (long l = 0; l < L; l++) finite &= loss[l] - loss[l] == 0;
        if (ended || (L == 1 && !finite)) { /* this step begins again another time, from no gradient */
            clear(s.memory[1], parameters);
            return step - first;
        }
        if (!rank)
            for (long i = 0; i < program[SCALARS]; i++)
                numbers[(long)program[HEADER + i] * (longest + 1)] = (real)scalars[(step - first) * program[SCALARS] + i];
        if (ranks > 1) { /* this thread's part of all gradients, into the first thread's */
            long width = (parameters / ranks + W - 1) / W * W, at = least(parameters, width * rank);
            long stop_at = rank + 1 == ranks ? parameters : least(parameters, at + width);
            for (long r = 1; r < ranks; r++)
                for (long k = at; k < stop_at; k += W) {
                    store(own + k, load(own + k) + load(own + r * own_size + k));
                    store(own + r * own_size + k, splat(0));
                }
            meet(meetings + 1, ranks, rest);
        }
        s.tokens_of[0] = 0; /* the update's numbers are those of length 0 */
        for (long l = 0; l < L; l++) s.lane[l] = 0;
        s.memory[1] = own;
        s.stop = 0; /* an update is done as a whole */
        s.slice = rank;
        s.slices = ranks;
        perform(&s, program[UPDATE], program[BODY]);
        s.memory[1] = own + rank * own_size;
        s.slices = 1;
        meet(meetings + 2, ranks, rest);
    }
    return end - first;
}

#include "check.c"
