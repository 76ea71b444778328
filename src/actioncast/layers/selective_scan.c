/* Selective scan and its gradient, one block of channels at a time.

   A vector holds WIDTH channels; a state is one such vector for each of its entries, and stays in
   the nearest cache over all steps. Nothing of [step, channel, state] is ever written but one
   chunk of states, for the gradient. Plain C with vector types: compilers that have these split
   them into what the processor has.

   Steps, with x = dt * A:  h = exp(x) * h + phi * B * u,  y = sum over states of C * h,
   where phi is dt (Euler) or expm1(x) / A (zero-order hold).
*/
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 16
#define CHUNK 32

typedef float vec __attribute__((vector_size(WIDTH * 4)));
typedef int32_t ints __attribute__((vector_size(WIDTH * 4)));

typedef struct {
    long batch, steps, states;
    long width;           /* channels of the whole tensors: the stride of a step */
    long begin, end;      /* channels of this call */
    long bc_width;        /* entries of B and C in a step: groups times states */
    long bc_begin;        /* where the states of this call's group begin in them */
    long zero_order_hold; /* else Euler */
} Shape;

static inline vec all(float value) { return value - (vec){0}; }

static inline vec load(const float *from, long lanes) {
    vec v = {0};
    if (lanes == WIDTH) memcpy(&v, from, sizeof v);
    else memcpy(&v, from, lanes * sizeof(float));
    return v;
}

static inline void store(float *to, vec v, long lanes) {
    if (lanes == WIDTH) memcpy(to, &v, sizeof v);
    else memcpy(to, &v, lanes * sizeof(float));
}

static inline vec choose(ints where, vec a, vec b) {
    return (vec)((where & (ints)a) | (~where & (ints)b));
}

/* exp(x) - 1 as 2^k * p + (2^k - 1), which keeps every digit of a small x; also exp(x). */
static inline vec exp_minus_1(vec x, vec *exponential) {
    const vec magic = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to integers */
    x = choose(x < -87.0f, all(-87.0f), x);
    x = choose(x > 88.0f, all(88.0f), x);
    vec k = (x * 1.44269504f + magic) - magic;
    vec r = (x - k * 0.693145752f) - k * 1.42860677e-6f;
    vec p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r;
    vec power = (vec)((__builtin_convertvector(k, ints) + 127) << 23);
    *exponential = power * p + power;
    return power * p + (power - 1.0f);
}

/* (x exp(x) - expm1(x)) / x^2, of which d phi / d A is dt^2 times: a series where x is small. */
static inline vec phi_slope(vec x, vec exponential, vec exponential_minus_1) {
    vec s = all(10.0f / 39916800);
    s = s * x + 9.0f / 3628800;
    s = s * x + 8.0f / 362880;
    s = s * x + 7.0f / 40320;
    s = s * x + 6.0f / 5040;
    s = s * x + 5.0f / 720;
    s = s * x + 4.0f / 120;
    s = s * x + 3.0f / 24;
    s = s * x + 2.0f / 6;
    s = s * x + 0.5f;
    ints small = (x > -1.0f) & (x < 1.0f);
    vec away = choose(small, all(1.0f), x);
    return choose(small, s, (x * exponential - exponential_minus_1) / (away * away));
}

/* Columns of A for one block of channels, with 1 / A; where A is 0, phi is dt itself. */
typedef struct { vec *a, *inverse, *is_zero; } Columns;

static void read_columns(Columns c, const float *a, const Shape *s, long first, long lanes) {
    for (long n = 0; n < s->states; n++) {
        float column[WIDTH] = {0};
        for (long i = 0; i < lanes; i++) column[i] = a[(first + i) * s->states + n];
        memcpy(&c.a[n], column, sizeof(vec));
        ints zero = c.a[n] == 0.0f;
        c.is_zero[n] = choose(zero, all(1.0f), all(0.0f));
        c.inverse[n] = choose(zero, all(0.0f), 1.0f / choose(zero, all(1.0f), c.a[n]));
    }
}

static void *vectors(long count) { return aligned_alloc(sizeof(vec), count * sizeof(vec)); }

static inline long smaller(long a, long b) { return a < b ? a : b; }

long actioncast_chunk(void) { return CHUNK; }
long actioncast_width(void) { return WIDTH; }

/* u, dt, y: [batch, steps, width]; a: [width, states]; b, c: [batch, steps, bc_width];
   first, last: [batch, width, states] (first may be NULL); borders: the state before every chunk,
   [batch, chunks, blocks, states, WIDTH] with blocks counted over the whole width, or NULL. */
int actioncast_scan(const Shape *s, const float *u, const float *dt, const float *a,
                    const float *b, const float *c, const float *first, float *y, float *last,
                    float *borders) {
    long N = s->states, blocks = (s->width + WIDTH - 1) / WIDTH;
    long chunks = (s->steps + CHUNK - 1) / CHUNK;
    vec *room = vectors(4 * N);
    if (!room) return 1;
    vec *h = room;
    Columns column = {room + N, room + 2 * N, room + 3 * N};
    for (long from = s->begin; from < s->end; from += WIDTH) {
        long lanes = smaller(WIDTH, s->end - from);
        read_columns(column, a, s, from, lanes);
        for (long i = 0; i < s->batch; i++) {
            for (long n = 0; n < N; n++) {
                float start[WIDTH] = {0};
                if (first)
                    for (long l = 0; l < lanes; l++)
                        start[l] = first[(i * s->width + from + l) * N + n];
                memcpy(&h[n], start, sizeof(vec));
            }
            for (long t = 0; t < s->steps; t++) {
                if (borders && t % CHUNK == 0)
                    memcpy(borders + (((i * chunks + t / CHUNK) * blocks + from / WIDTH) * N) * WIDTH,
                           h, N * sizeof(vec));
                long at = (i * s->steps + t) * s->width + from;
                vec step = load(dt + at, lanes), in = load(u + at, lanes), out = {0};
                const float *bt = b + (i * s->steps + t) * s->bc_width + s->bc_begin;
                const float *ct = c + (i * s->steps + t) * s->bc_width + s->bc_begin;
                if (s->zero_order_hold) {
                    for (long n = 0; n < N; n++) {
                        vec e, m = exp_minus_1(step * column.a[n], &e);
                        vec phi = m * column.inverse[n] + step * column.is_zero[n];
                        h[n] = e * h[n] + phi * bt[n] * in;
                        out += h[n] * ct[n];
                    }
                } else {
                    vec driven = step * in;
                    for (long n = 0; n < N; n++) {
                        vec e;
                        exp_minus_1(step * column.a[n], &e);
                        h[n] = e * h[n] + driven * bt[n];
                        out += h[n] * ct[n];
                    }
                }
                store(y + at, out, lanes);
            }
            for (long n = 0; n < N; n++)
                for (long l = 0; l < lanes; l++)
                    last[(i * s->width + from + l) * N + n] = h[n][l];
        }
    }
    free(room);
    return 0;
}

/* Gradients, added to da and written to the others; db, dc: [batch, steps, bc_width] of this call
   alone. gy is that of y, glast that of the last state (or NULL). */
int actioncast_scan_gradient(const Shape *s, const float *u, const float *dt, const float *a,
                             const float *b, const float *c, const float *borders, const float *gy,
                             const float *glast, float *du, float *ddt, float *da, float *db,
                             float *dc, float *dfirst) {
    long N = s->states, blocks = (s->width + WIDTH - 1) / WIDTH;
    long chunks = (s->steps + CHUNK - 1) / CHUNK;
    long own = (s->end - s->begin + WIDTH - 1) / WIDTH;
    long rows = CHUNK * N;
    /* gradient of the state and of A, and the columns, for each block; then one chunk's states,
       factors, and sums of the gradients of B and C over blocks. */
    vec *room = vectors(own * N * 5 + (rows + N) + 2 * rows + 2 * rows);
    if (!room) return 1;
    vec *g = room, *ga = g + own * N, *columns = ga + own * N;
    vec *h = columns + 3 * own * N, *e = h + rows + N, *phi = e + rows;
    vec *sum_b = phi + rows, *sum_c = sum_b + rows;
    memset(ga, 0, own * N * sizeof(vec));
    for (long k = 0; k < own; k++) {
        long from = s->begin + k * WIDTH;
        Columns column = {columns + 3 * k * N, columns + (3 * k + 1) * N, columns + (3 * k + 2) * N};
        read_columns(column, a, s, from, smaller(WIDTH, s->end - from));
    }
    for (long i = 0; i < s->batch; i++) {
        memset(g, 0, own * N * sizeof(vec));
        if (glast)
            for (long k = 0; k < own; k++)
                for (long n = 0; n < N; n++)
                    for (long l = 0; l < WIDTH && s->begin + k * WIDTH + l < s->end; l++)
                        g[k * N + n][l] = glast[(i * s->width + s->begin + k * WIDTH + l) * N + n];
        for (long chunk = chunks - 1; chunk >= 0; chunk--) {
            long t0 = chunk * CHUNK, length = smaller(CHUNK, s->steps - t0);
            memset(sum_b, 0, 2 * rows * sizeof(vec));
            for (long k = 0; k < own; k++) {
                long from = s->begin + k * WIDTH, lanes = smaller(WIDTH, s->end - from);
                const vec *A = columns + 3 * k * N, *inverse = A + N, *is_zero = inverse + N;
                vec *gk = g + k * N, *gak = ga + k * N;
                memcpy(h, borders + (((i * chunks + chunk) * blocks + from / WIDTH) * N) * WIDTH,
                       N * sizeof(vec));
                for (long j = 0; j < length; j++) {
                    long at = (i * s->steps + t0 + j) * s->width + from;
                    vec step = load(dt + at, lanes), in = load(u + at, lanes);
                    const float *bt = b + (i * s->steps + t0 + j) * s->bc_width + s->bc_begin;
                    vec *now = h + j * N, *next = now + N, *ej = e + j * N, *pj = phi + j * N;
                    vec driven = step * in;
                    for (long n = 0; n < N; n++) {
                        vec m = exp_minus_1(step * A[n], &ej[n]);
                        if (s->zero_order_hold) {
                            pj[n] = m * inverse[n] + step * is_zero[n];
                            next[n] = ej[n] * now[n] + pj[n] * bt[n] * in;
                        } else {
                            next[n] = ej[n] * now[n] + driven * bt[n];
                        }
                    }
                }
                for (long j = length - 1; j >= 0; j--) {
                    long at = (i * s->steps + t0 + j) * s->width + from;
                    vec step = load(dt + at, lanes), in = load(u + at, lanes);
                    vec gout = load(gy + at, lanes), gin = {0}, gstep = {0};
                    const float *bt = b + (i * s->steps + t0 + j) * s->bc_width + s->bc_begin;
                    const float *ct = c + (i * s->steps + t0 + j) * s->bc_width + s->bc_begin;
                    vec *now = h + j * N, *next = now + N, *ej = e + j * N, *pj = phi + j * N;
                    vec *sbj = sum_b + j * N, *scj = sum_c + j * N;
                    if (s->zero_order_hold) {
                        for (long n = 0; n < N; n++) {
                            vec own_g = gk[n] + gout * ct[n], before = own_g * ej[n];
                            vec x = step * A[n], m = pj[n] * A[n];
                            vec slope = step * step * phi_slope(x, ej[n], m);
                            scj[n] += gout * next[n];
                            gin += own_g * bt[n] * pj[n];
                            sbj[n] += own_g * pj[n] * in;
                            gstep += before * (now[n] * A[n] + bt[n] * in);
                            gak[n] += before * now[n] * step + own_g * bt[n] * in * slope;
                            gk[n] = before;
                        }
                    } else {
                        vec driven = step * in, along = {0};
                        for (long n = 0; n < N; n++) {
                            vec own_g = gk[n] + gout * ct[n], before = own_g * ej[n];
                            vec kept = before * now[n];
                            scj[n] += gout * next[n];
                            along += own_g * bt[n];
                            sbj[n] += own_g * driven;
                            gstep += kept * A[n];
                            gak[n] += kept * step;
                            gk[n] = before;
                        }
                        gin = along * step;
                        gstep += along * in;
                    }
                    store(du + at, gin, lanes);
                    store(ddt + at, gstep, lanes);
                }
            }
            for (long j = 0; j < length; j++)
                for (long n = 0; n < N; n++) {
                    float total_b = 0, total_c = 0;
                    for (long l = 0; l < WIDTH; l++) {
                        total_b += sum_b[j * N + n][l];
                        total_c += sum_c[j * N + n][l];
                    }
                    long at = (i * s->steps + t0 + j) * s->bc_width + s->bc_begin + n;
                    db[at] = total_b;
                    dc[at] = total_c;
                }
        }
        if (dfirst)
            for (long k = 0; k < own; k++)
                for (long n = 0; n < N; n++)
                    for (long l = 0; l < WIDTH && s->begin + k * WIDTH + l < s->end; l++)
                        dfirst[(i * s->width + s->begin + k * WIDTH + l) * N + n] = g[k * N + n][l];
    }
    for (long k = 0; k < own; k++)
        for (long n = 0; n < N; n++)
            for (long l = 0; l < WIDTH && s->begin + k * WIDTH + l < s->end; l++)
                da[(s->begin + k * WIDTH + l) * N + n] += ga[k * N + n][l];
    free(room);
    return 0;
}
