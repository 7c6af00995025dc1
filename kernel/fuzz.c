/* The fuzzer: damages programs at random, and executes those that the check lets through.

       fuzz FILE FIRST END THREADS PROGRESS

   FILE holds programs that are right; tests/test_kernel_safety.py writes it and says how. Each of them is damaged
   in as many ways as there are numbers from FIRST to END; number 0 leaves it as it is. What the check accepts is
   executed, in memory of exactly the sizes that the check was told, between pages that may not be touched. So a
   read or write outside ends the process, as does what a sanitizer sees; PROGRESS then names program and damage,
   and the same two numbers show it again. For each program one line is written: what the check says of it, and how
   many of its damaged forms it accepted.                                                                          */

#define _GNU_SOURCE
#include "kernel.c"


#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define FORBID(at, bytes) __asan_poison_memory_region(at, bytes)
#define ALLOW(at, bytes) __asan_unpoison_memory_region(at, bytes)
#else
#define FORBID(at, bytes) (void)(at), (void)(bytes)
#define ALLOW(at, bytes) (void)(at), (void)(bytes)
#endif

/* ---- Random numbers ---- */

static uint64_t state;

static uint64_t next(void) { /* splitmix64, by Sebastiano Vigna */
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int64_t below(int64_t n) { return n > 0 ? (int64_t)(next() % (uint64_t)n) : 0; }
static int one_in(int64_t n) { return below(n) == 0; }

/* ---- Memory that ends where it is said to ---- */

enum { PROGRAM, SHARED_PART, OWN_PART, FIXED_PART, NUMBERS_PART, TOKEN_LIST, STARTS, ORDER, SCALAR_LIST, LOSSES, PARTIAL,
       MEETINGS, CHANCES, TEXTS, LENGTHS, AREAS };
enum { MOST_THREADS = 3, MARK = 0x5a, MARKED = 256 };
#define AREA ((int64_t)1 << 24)
#define GUARD ((int64_t)1 << 26)

static char *areas[AREAS];
static int64_t taken[AREAS];

static void open_areas(void) {
    for (int i = 0; i < AREAS; i++) {
        char *all = mmap(0, (size_t)(AREA + 2 * GUARD), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED || mprotect(all + GUARD, (size_t)AREA, PROT_READ | PROT_WRITE)) exit(3);
        areas[i] = all + GUARD;
        FORBID(areas[i], AREA);
    }
}

/* Memory of so many bytes, which ends at a page that may not be touched. What lies before it may not be touched
   either: where no sanitizer sees that, a mark is left there. */
static void *take(int area, int64_t bytes) {
    char *end = areas[area] + AREA;
    if (bytes < 0 || bytes > AREA - MARKED) exit(4);
    FORBID(end - taken[area], taken[area]);
    taken[area] = bytes;
    ALLOW(end - bytes - MARKED, bytes + MARKED);
    memset(end - bytes - MARKED, MARK, MARKED);
    FORBID(end - bytes - MARKED, MARKED);
    return end - bytes;
}

static void check_marks(void) {
    for (int i = 0; i < AREAS; i++) {
        char *begin = areas[i] + AREA - taken[i] - MARKED;
        ALLOW(begin, MARKED);
        for (int k = 0; k < MARKED && taken[i]; k++)
            if (begin[k] != MARK) {
                fprintf(stderr, "something wrote before the begin of area %d\n", i);
                abort();
            }
        FORBID(begin, MARKED);
    }
}

static void complain_if(int wrong, const char *what) {
    if (!wrong) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* ---- One program ---- */

/* As it lies in the file: these sizes, then each list. Numbers are doubles there. */
typedef struct { int64_t use, length, fixed, numbers, token_count, documents; } sizes;
typedef struct {
    sizes n;
    int32_t head[HEADER]; /* of the program, zeros where it ends before */
    int32_t *program, *tokens;
    double *fixed, *numbers;
    int64_t *starts;
} sample_program;

static int read_list(FILE *file, void **into, int64_t count, int64_t bytes) {
    *into = malloc((size_t)(count * bytes + 1));
    return *into && (int64_t)fread(*into, (size_t)bytes, (size_t)count, file) == count;
}

static int read_program(FILE *file, sample_program *p) {
    int whole = fread(&p->n, sizeof p->n, 1, file) == 1 && read_list(file, (void **)&p->program, p->n.length, 4)
        && read_list(file, (void **)&p->fixed, p->n.fixed, 8) && read_list(file, (void **)&p->numbers, p->n.numbers, 8)
        && read_list(file, (void **)&p->tokens, p->n.token_count, 4)
        && read_list(file, (void **)&p->starts, p->n.documents + 1, 8);
    for (int i = 0; whole && i < HEADER; i++) p->head[i] = i < p->n.length ? p->program[i] : 0;
    return whole;
}

/* A number of the kind that finds mistakes. */
static int32_t other(const int32_t *list, int64_t length, int32_t old) {
    static const int32_t edges[] = {0, 1, -1, 2, 15, 16, 17, 24, 64, 65, 256, INT32_MAX, INT32_MIN, 1 << 30};
    switch (below(9)) {
    case 0: return (int32_t)((uint32_t)old + (uint32_t)below(5) - 2);
    case 1: return (int32_t)((uint32_t)old + (one_in(2) ? 16u : -16u));
    case 2: return (int32_t)below(40);
    case 3: case 4: return list[below(length)];
    case 5: return old ^ (int32_t)(1u << below(32));
    case 6: return (int32_t)next();
    case 7: return one_in(2) ? old / 2 : (int32_t)((uint32_t)old * 2);
    default: return edges[below(sizeof edges / sizeof *edges)];
    }
}

/* Damage to a program: mostly one number, sometimes a view or a step put in another's place. */
static void damage(int32_t *program, int64_t length) {
    int64_t views = HEADER + program[SCALARS], many = program[VIEWS], body = views + many * VIEW;
    int64_t steps[4096], count = 0;
    for (int64_t at = body; at < length && count < 4096; at += program[at + 1]) steps[count++] = at;
    for (int64_t n = 1 + (one_in(3) ? below(4) : 0); n; n--) {
        int64_t a = steps[below(count)], b = steps[below(count)], place;
        int32_t *one = program + views + below(many) * VIEW, *two = program + views + below(many) * VIEW;
        switch (below(16)) {
        case 0: case 1: /* the header */
            place = below(views);
            program[place] = other(program, views, program[place]);
            break;
        case 2: case 3: case 4: case 5: /* a view */
            place = below(VIEW);
            one[place] = other(program + views, body - views, one[place]);
            break;
        case 6: one[below(VIEW)] = two[below(VIEW)]; break;
        case 7: memcpy(one, two, VIEW * sizeof *one); break;
        case 8: program[a] = (int32_t)below(STEPS + 1); break;
        case 9: program[a + 2] ^= 1; break;
        case 10: /* a step in the place of one of the same length, or of any */
            for (int tries = 0; tries < 50 && program[a + 1] != program[b + 1]; tries++) b = steps[below(count)];
            place = program[b + 1];
            if (within(place, 1, length - a) && place <= length - b) memmove(program + a, program + b, (size_t)place * 4);
            return; /* steps may begin elsewhere now */
        case 11: /* a view's size follows a larger document */
            place = one_in(2) ? ROW_TIMES : COLUMN_TIMES;
            one[place] = (int32_t)((uint32_t)one[place] + 1);
            one[place + 1] = (int32_t)((uint32_t)one[place + 1] - (uint32_t)below(3));
            break;
        default: /* a number of a step */
            place = a + below(least(program[a + 1], length - a));
            program[place] = one_in(2) ? (int32_t)below(many) : other(program + body, length - body, program[place]);
        }
    }
}

/* No program at all, but the begin of one. */
static void garbage(int32_t *program, int64_t length) {
    int64_t from = one_in(2) ? 0 : one_in(2) ? HEADER : HEADER + program[SCALARS] + below(program[VIEWS]) * VIEW;
    for (int64_t i = from; i < length; i++) program[i] = one_in(4) ? (int32_t)next() : (int32_t)below(one_in(2) ? 4 : 40);
    if (one_in(2)) program[MAGIC] = 0x6d677074;
}

static void fill(real *at, int64_t count) { /* numbers of which some are none */
    real wild[] = {0, 1, (real)-1e30, (real)1e30, (real)__builtin_inf(), (real)__builtin_nan(""), (real)1e-40, (real)-0.5};
    int many = one_in(4);
    uint64_t at_random = next();
    for (int64_t i = 0; i < count; i++) {
        at_random = at_random * 6364136223846793005u + 1442695040888963407u; /* Knuth's, as it is quick */
        uint32_t x = (uint32_t)(at_random >> 32);
        at[i] = many && (x & 7) == 0 ? wild[x >> 8 & 7] : (real)(int32_t)x * (real)0x1p-32;
    }
}

/* ---- Running it ---- */

typedef struct {
    const int32_t *program, *tokens, *order;
    real *shared, *own, *fixed, *numbers;
    const int64_t *starts;
    const double *scalars;
    double *losses, *partial;
    meeting *meetings;
    int64_t steps, batch, own_size, ranks, rank;
} job;

static int rested(void) { return sched_yield(); }

static void *work(void *given) {
    const job *j = given;
    int32_t stop = 0;
    NAME(train)(j->program, j->shared, j->own, j->fixed, j->numbers, j->tokens, j->starts, j->order, 0, j->steps, j->batch,
                j->scalars, j->losses, &stop, j->rank, j->ranks, j->own_size, j->meetings, j->partial, j->rank ? 0 : rested);
    return 0;
}

static void train_together(job j) {
    job jobs[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    for (int64_t r = 0; r < j.ranks; r++) jobs[r] = j, jobs[r].rank = r;
    for (int64_t r = 1; r < j.ranks; r++)
        if (pthread_create(&threads[r], 0, work, &jobs[r])) exit(5);
    work(&jobs[0]);
    for (int64_t r = 1; r < j.ranks; r++) pthread_join(threads[r], 0);
}

/* The way there and back must leave alone what is shared. */
static void one_chunk(const job *j, int64_t count) {
    size_t bytes = (size_t)taken[SHARED_PART];
    void *before = malloc(bytes + 1);
    memcpy(before, j->shared, bytes);
    scene s = opened(j->program, j->shared, j->own, j->fixed, j->numbers, j->tokens, j->starts);
    choose_documents(&s, j->order, count, j->program[LONGEST]);
    perform(&s, 0, j->program[UPDATE]);
    complain_if(memcmp(before, j->shared, bytes) != 0, "a step before the update wrote to what is shared");
    free(before);
}

static int64_t fits_area(int64_t count) { return within(count, 1, (AREA - MARKED) / (int64_t)sizeof(real)); }

/* One form of a program: how the check found it; 0 when it was executed. */
static int64_t attempt(const sample_program *p, int64_t number, int64_t most_threads) {
    const sizes *n = &p->n;
    int64_t length = n->length, use = n->use, documents = n->documents;
    int64_t steps = 1 + below(2), ranks = 1 + (number % 8 == 0 ? below(most_threads) : 0);
    int32_t *damaged = malloc((size_t)(length * 4 + 4));
    memcpy(damaged, p->program, (size_t)length * 4);
    if (number && number % 40 == 39) garbage(damaged, length);
    else if (number) damage(damaged, length);
    if (number && number % 40 == 38) length = below(length + 1);
    if (number && one_in(20)) use = below(3);
    int32_t *program = take(PROGRAM, length * 4);
    memcpy(program, damaged, (size_t)length * 4);
    free(damaged);

    /* Memory of the sizes that this program asks for, or else those of the undamaged one. */
    const int32_t *h = length >= HEADER && !one_in(4) ? program : p->head;
    int64_t shared = (int64_t)h[SHARED] * L + W, fixed = (int64_t)h[FIXED] * L + W;
    int64_t own = ((int64_t)h[OWN] + h[LONGEST] + 1 + h[SCRATCH]) * L + 2 * W;
    int64_t numbers = (int64_t)h[NUMBERS] * ((int64_t)h[LONGEST] + 1);
    int64_t chunk = within(h[CHUNK], 1, MOST_DOCUMENTS) ? h[CHUNK] : 1, batch = 1 + below(2 * chunk);
    h = p->head;
    if (!fits_area(shared)) shared = (int64_t)h[SHARED] * L + W;
    if (!fits_area(own)) own = ((int64_t)h[OWN] + h[LONGEST] + 1 + h[SCRATCH]) * L + 2 * W;
    if (!fits_area(fixed)) fixed = (int64_t)h[FIXED] * L + W;
    if (!fits_area(numbers)) numbers = (int64_t)h[NUMBERS] * ((int64_t)h[LONGEST] + 1);
    if (use != TO_TRAIN || !fits_area(own * ranks)) ranks = 1;
    if (number % 20 == 18) { /* a number or two too few */
        int64_t *parts[] = {&shared, &own, &fixed, &numbers}, *part = parts[below(4)];
        *part = least(*part, 1 + below(*part) + below(2) * *part);
    }

    job j = {.program = program, .steps = steps, .batch = batch, .own_size = own, .ranks = ranks};
    j.shared = take(SHARED_PART, shared * (int64_t)sizeof(real));
    j.own = take(OWN_PART, own * ranks * (int64_t)sizeof(real));
    j.fixed = take(FIXED_PART, fixed * (int64_t)sizeof(real));
    j.numbers = take(NUMBERS_PART, numbers * (int64_t)sizeof(real));
    for (int64_t i = 0; i < fixed; i++) j.fixed[i] = i / L < n->fixed ? (real)p->fixed[i / L] : 0;
    for (int64_t i = 0; i < numbers; i++) j.numbers[i] = i < n->numbers ? (real)p->numbers[i] : (real)(i % 7);
    int64_t token_count = use == TO_SAMPLE ? 1 + below(h[LONGEST]) + 1 : n->token_count;
    int32_t *tokens = take(TOKEN_LIST, (use == TO_SAMPLE ? h[LONGEST] + 2 : token_count) * 4);
    for (int64_t i = 0; i < token_count; i++) tokens[i] = p->tokens[i % n->token_count];
    if (use == TO_SAMPLE) documents = 1;
    int64_t *starts = take(STARTS, (documents + 1) * 8), order_count = use == TO_TRAIN ? steps * batch * L : batch;
    for (int64_t i = 0; i <= documents; i++) starts[i] = use == TO_SAMPLE ? i * token_count : p->starts[i];
    int32_t *order = take(ORDER, order_count * 4);
    int64_t longest = 0, all = one_in(2); /* the longest fill memory to its end; others leave lanes ragged */
    for (int64_t i = 0; i < documents; i++)
        if (starts[i + 1] - starts[i] > starts[longest + 1] - starts[longest]) longest = i;
    for (int64_t i = 0; i < order_count; i++) order[i] = (int32_t)(all ? longest : below(documents));
    if (number && number % 20 == 19) {
        static const double strange[] = {-1, 0.5, 1e9, -1e9, 1e30, 0.0 / 0.0};
        if (one_in(3))
            for (int64_t n = 1 + below(fixed); n; n--) /* what is a constant, and what a table of places? */
                j.fixed[below(fixed)] = (real)(one_in(2) ? (double)below(2 * h[LONGEST]) : strange[below(6)]);
        else if (one_in(3)) tokens[below(token_count)] = other(tokens, token_count, 0);
        else if (one_in(2)) starts[below(documents + 1)] += one_in(2) ? below(5) - 2 : (int64_t)next();
        else order[below(order_count)] = other(order, order_count, (int32_t)documents - 1);
    }
    j.tokens = tokens, j.starts = starts, j.order = order;
    int64_t wrong = NAME(check)(program, length, use, shared, own, fixed, numbers, j.fixed, tokens, token_count, starts,
                                documents, order, order_count);
    if (wrong) return wrong;

    double *scalars = take(SCALAR_LIST, steps * program[SCALARS] * 8);
    j.losses = take(LOSSES, steps * L * 8);
    j.partial = take(PARTIAL, ranks * (L + 1) * 8);
    j.meetings = take(MEETINGS, 3 * sizeof(meeting));
    memset(j.meetings, 0, 3 * sizeof(meeting));
    for (int64_t i = 0; i < steps * program[SCALARS]; i++) scalars[i] = one_in(9) ? (double)next() : 0.25;
    j.scalars = scalars;
    fill(j.shared, shared);
    for (int64_t r = 0; r < ranks; r++) fill(j.own + r * own, own);
    size_t bytes = (size_t)fixed * sizeof(real);
    void *before = malloc(bytes);
    memcpy(before, j.fixed, bytes);
    alarm(20);
    if (use == TO_TRAIN) {
        one_chunk(&j, least(batch, program[CHUNK]));
        train_together(j);
        NAME(forward)(program, j.shared, j.own, j.fixed, j.numbers, tokens, starts, order, least(batch, program[CHUNK]));
        NAME(first_bad)(program, j.shared, j.own, j.fixed, j.numbers, tokens, starts, order, batch);
    } else if (use == TO_MEASURE) {
        double surprise;
        int32_t stop = 0;
        NAME(measure)(program, j.shared, j.own, j.fixed, j.numbers, tokens, starts, order, batch, &surprise, &stop);
    } else {
        int64_t most = h[LONGEST] + 1, count = token_count - 1, texts = 1 + below(3);
        int32_t *ids = take(TEXTS, texts * (most + 1) * 4), stop = 0;
        double *chances = take(CHANCES, texts * (most - count) * 8);
        for (int64_t i = 0; i < texts * (most - count); i++) chances[i] = (double)(next() >> 11) * 0x1p-53;
        memcpy(ids, tokens, (size_t)count * 4);
        NAME(sample)(program, j.shared, j.own, j.fixed, j.numbers, ids, count, most, tokens[count], chances, texts,
                     take(LENGTHS, texts * 8), &stop);
    }
    alarm(0);
    complain_if(memcmp(before, j.fixed, bytes) != 0, "a step wrote to what is fixed");
    free(before);
    check_marks();
    return 0;
}

int main(int count, char **words) {
    if (count != 6) return 2;
    FILE *file = fopen(words[1], "rb");
    int64_t first = atoll(words[2]), end = atoll(words[3]), threads = atoll(words[4]);
    FILE *progress = fopen(words[5], "w");
    if (!file || !progress || threads < 1 || threads > MOST_THREADS) return 2;
    open_areas();
    sample_program p;
    for (int64_t which = 0; read_program(file, &p); which++) {
        int64_t found = 0, accepted = 0;
        for (int64_t number = first; number < end; number++) {
            char text[64];
            int n = snprintf(text, sizeof text, "%lld %lld\n%20s", (long long)which, (long long)number, "");
            if (pwrite(fileno(progress), text, (size_t)n, 0) != n) return 2;
            state = (uint64_t)which << 40 ^ (uint64_t)number;
            int64_t wrong = attempt(&p, number, threads);
            if (number == first) found = wrong;
            accepted += number != 0 && !wrong;
        }
        printf("%lld %lld\n", (long long)found, (long long)accepted);
        free(p.program), free(p.tokens), free(p.fixed), free(p.numbers), free(p.starts);
    }
    return 0;
}
