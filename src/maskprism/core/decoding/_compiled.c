/* The Python extension around maskprism_decode.h: loops over instances without the GIL. See compiled.py for the arrays. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define MPD_HOT __attribute__((target_clones("avx2", "default"))) /* wider registers where there are any, the same bits */
#endif
#include "maskprism_decode.h"

enum { BITMAP, SOFT, RESIZED, GRID_LOGITS };

enum { GROUP = 64, ARENA = 1 << 20 }; /* at most so many instances, and logits, are computed together */

typedef struct { mpd_windows windows; int any; size_t at; } Loaded;

typedef struct {
    Py_buffer setup, data, weights, boxes, a, b, c;
    mpd_plan plan;
    mpd_prototypes prototypes;
    void *memory;
    Py_ssize_t n, begin, end; /* instances begin..end - 1 have their logits in `logits` */
    float *packed, *logits, threshold;
    Loaded group[GROUP];
} Job;

static void release(Job *job) {
    Py_buffer *buffers[] = {&job->setup, &job->data, &job->weights, &job->boxes, &job->a, &job->b, &job->c};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i]->obj) PyBuffer_Release(buffers[i]);
    free(job->memory);
    free(job->packed);
    free(job->logits);
}

/* Check the arrays, so that no pointer can leave them, and make the plan. Returns 0, or -1 with an exception. */
static int prepare(Job *job) {
    mpd_letterbox letterbox;
    mpd_rule rule;
    mpd_prototypes *p = &job->prototypes;
    int32_t ints[16];
    size_t bytes, width = p->is_int8 ? 1 : sizeof(float);
    if (job->setup.len != sizeof ints) return PyErr_SetString(PyExc_ValueError, "setup: expected 16 int32"), -1;
    memcpy(ints, job->setup.buf, sizeof ints);
    memcpy(&letterbox, ints, sizeof letterbox);
    memcpy(&rule, ints + 10, sizeof rule);
    bytes = mpd_plan_bytes(&letterbox, &rule, ints[15]);
    if (!bytes) return PyErr_SetString(PyExc_ValueError, "the sizes of the letterbox are too large to decode"), -1;
    if (p->n < 1 || p->stride_k < 1 || p->stride_y < 1 || p->stride_x < 1 ||
        ((p->n - 1) * p->stride_k + (letterbox.grid[0] - 1) * p->stride_y + (letterbox.grid[1] - 1) * p->stride_x + 1) *
                (Py_ssize_t)width > job->data.len)
        return PyErr_SetString(PyExc_ValueError, "prototypes: the buffer is too small"), -1;
    job->n = job->weights.len / (Py_ssize_t)sizeof(float) / p->n;
    if (job->boxes.obj && job->boxes.len < job->n * 4 * (Py_ssize_t)sizeof(float))
        return PyErr_SetString(PyExc_ValueError, "boxes: the buffer is too small"), -1;
    p->data = job->data.buf;
    job->memory = malloc(bytes);
    if (!job->memory) return PyErr_NoMemory(), -1;
    if (mpd_plan_init(&job->plan, &letterbox, &rule, ints[15], job->memory, bytes) < 0) return -1;
    job->plan.threshold = job->threshold;
    return 0;
}

static const float *box_of(const Job *job, Py_ssize_t i) {
    return job->boxes.obj ? (const float *)job->boxes.buf + 4 * i : NULL;
}

/* Compute the logits of the next instances. A row of all prototypes stays in the cache while they use it. */
static int load_group(Job *job, Py_ssize_t begin) {
    const mpd_letterbox *l = &job->plan.letterbox;
    const mpd_prototypes *p = &job->prototypes;
    const size_t cells = (size_t)l->grid[0] * (size_t)l->grid[1], most = cells > ARENA ? cells : ARENA;
    size_t used = 0;
    free(job->logits);
    job->logits = NULL;
    if (!job->packed) job->packed = (float *)calloc((size_t)(p->n + 1) * ((size_t)l->grid[1] + 8), sizeof(float));
    if (!job->packed) return -1;
    job->begin = job->end = begin;
    for (; job->end < job->n && job->end - begin < GROUP; job->end++) {
        Loaded *one = &job->group[job->end - begin];
        size_t size;
        one->any = mpd_locate(&job->plan, box_of(job, job->end));
        if (!one->any) continue;
        one->windows = job->plan.at;
        size = (size_t)mpd_length(one->windows.grid[0]) * (size_t)mpd_length(one->windows.grid[1]);
        if (used && used + size > most) break;
        one->at = used;
        used += size;
    }
    job->logits = (float *)malloc((used + 1) * sizeof(float));
    if (!job->logits) return -1;
    memset(job->logits, 0, used * sizeof(float));
    for (int32_t y = 0; y < l->grid[0]; y++) {
        mpd_span needed = {l->grid[1], 0};
        int32_t stride;
        for (Py_ssize_t i = begin; i < job->end; i++) {
            const Loaded *one = &job->group[i - begin];
            const mpd_span *kept = one->windows.kept;
            if (!one->any || y < kept[0].start || y >= kept[0].stop) continue;
            needed.start = mpd_min(needed.start, kept[1].start), needed.stop = mpd_max(needed.stop, kept[1].stop);
        }
        if (needed.start >= needed.stop) continue;
        stride = mpd_length(needed) + 8;
        mpd_unpack(p, 0, p->n, y, needed, job->packed, stride);
        for (Py_ssize_t i = begin; i < job->end; i++) {
            const Loaded *one = &job->group[i - begin];
            const mpd_span *grid = one->windows.grid, *kept = one->windows.kept;
            float *sum = job->packed + (ptrdiff_t)p->n * stride;
            const int32_t columns = mpd_length(kept[1]), whole = (columns + 7) / 8 * 8; /* no rest for loops of 8 */
            if (!one->any || y < kept[0].start || y >= kept[0].stop) continue;
            memset(sum, 0, (size_t)whole * sizeof(float));
            mpd_add(sum, job->packed + (kept[1].start - needed.start), stride, (const float *)job->weights.buf + i * p->n,
                    p->n, whole);
            memcpy(job->logits + one->at + (ptrdiff_t)(y - grid[0].start) * mpd_length(grid[1]) +
                       (kept[1].start - grid[1].start),
                   sum, (size_t)columns * sizeof(float));
        }
    }
    return 0;
}

/* As mpd_load, of instance i; instances are asked for in their order. Returns -1 without memory. */
static int load(Job *job, Py_ssize_t i) {
    const Loaded *one;
    if (i >= job->end && load_group(job, i) < 0) return -1;
    one = &job->group[i - job->begin];
    memset(&job->plan.at, 0, sizeof job->plan.at);
    if (!one->any) return 0;
    job->plan.at = one->windows;
    job->plan.logits = job->logits + one->at;
    mpd_finish(&job->plan);
    return 1;
}

#define COMMON "y*y*(iifinnn)fy*z*"
#define COMMON_ARGS \
    &job.setup, &job.data, &job.prototypes.n, &job.prototypes.is_int8, &job.prototypes.scale, \
        &job.prototypes.zero_point, &job.prototypes.stride_k, &job.prototypes.stride_y, &job.prototypes.stride_x, \
        &job.threshold, &job.weights, &job.boxes

/* windows(..., out int32 (N, 8)): the windows of pixels and of grid cells, each as y0, y1, x0, x1. */
static PyObject *windows(PyObject *self, PyObject *args) {
    Job job = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, COMMON "w*", COMMON_ARGS, &job.a) || prepare(&job) < 0) return release(&job), NULL;
    if (job.a.len < job.n * 32) {
        release(&job);
        return PyErr_SetString(PyExc_ValueError, "out: the buffer is too small"), NULL;
    }
    for (Py_ssize_t i = 0; i < job.n; i++) {
        mpd_locate(&job.plan, box_of(&job, i));
        memcpy((char *)job.a.buf + 32 * i, job.plan.at.pixels, 16);
        memcpy((char *)job.a.buf + 32 * i + 16, job.plan.at.grid, 16);
    }
    release(&job);
    Py_RETURN_NONE;
}

/* fill(..., out, offsets int64 (N), strides int64 (N), kind): write each window at its offset of `out`, in elements. */
static PyObject *fill(PyObject *self, PyObject *args) {
    Job job = {0};
    int kind, inside = 1, any = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, COMMON "w*y*y*i", COMMON_ARGS, &job.a, &job.b, &job.c, &kind) || prepare(&job) < 0)
        return release(&job), NULL;
    if (job.b.len < job.n * 8 || job.c.len < job.n * 8) {
        release(&job);
        return PyErr_SetString(PyExc_ValueError, "offsets, strides: the buffers are too small"), NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < job.n && inside && any >= 0; i++) {
        const int64_t offset = ((const int64_t *)job.b.buf)[i], stride = ((const int64_t *)job.c.buf)[i];
        const int64_t elements = job.a.len / (kind == BITMAP ? 1 : (int64_t)sizeof(float));
        const mpd_span *window = kind == GRID_LOGITS ? job.plan.at.grid : job.plan.at.pixels;
        int32_t height, width;
        any = load(&job, i);
        if (any <= 0) continue;
        height = mpd_length(window[0]), width = mpd_length(window[1]);
        inside = offset >= 0 && stride >= width && stride <= elements && offset + (height - 1) * stride + width <= elements;
        if (!inside) break;
        if (kind == BITMAP) mpd_bitmap(&job.plan, (uint8_t *)job.a.buf + offset, (ptrdiff_t)stride);
        if (kind == SOFT || kind == RESIZED)
            mpd_soft(&job.plan, (float *)job.a.buf + offset, (ptrdiff_t)stride, kind == RESIZED);
        for (int32_t y = 0; kind == GRID_LOGITS && y < height; y++)
            memcpy((float *)job.a.buf + offset + y * stride, job.plan.logits + (ptrdiff_t)y * width,
                   (size_t)width * sizeof(float));
    }
    Py_END_ALLOW_THREADS
    release(&job);
    if (any < 0) return PyErr_NoMemory();
    if (!inside) return PyErr_SetString(PyExc_ValueError, "out: a window lies outside of it"), NULL;
    Py_RETURN_NONE;
}

/* areas(..., out int64 (N)): pixels of each mask. */
static PyObject *areas(PyObject *self, PyObject *args) {
    Job job = {0};
    int any = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, COMMON "w*", COMMON_ARGS, &job.a) || prepare(&job) < 0) return release(&job), NULL;
    if (job.a.len < job.n * 8) {
        release(&job);
        return PyErr_SetString(PyExc_ValueError, "out: the buffer is too small"), NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < job.n && any >= 0; i++) {
        int64_t area = 0;
        any = load(&job, i);
        if (any > 0) mpd_rle(&job.plan, NULL, 0, &area);
        ((int64_t *)job.a.buf)[i] = area;
    }
    Py_END_ALLOW_THREADS
    release(&job);
    if (any < 0) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

typedef struct { uint32_t *counts; char *text; size_t capacity, used, room, ends[GROUP]; } Encoded;

/* Encode the instances whose logits are computed together with those of `begin`. Returns -1 without memory. */
static int encode_group(Job *job, Py_ssize_t begin, int compressed, Encoded *out) {
    Py_ssize_t i = begin;
    out->used = 0;
    do {
        int64_t n;
        if (load(job, i) < 0) return -1;
        while (!out->counts || (n = mpd_rle(&job->plan, out->counts, out->capacity, NULL)) < 0) {
            free(out->counts);
            out->capacity = out->capacity ? 4 * out->capacity : 1 << 12;
            out->counts = (uint32_t *)malloc(out->capacity * sizeof(uint32_t));
            if (!out->counts) return -1;
        }
        if (out->used + 7 * (size_t)n > out->room) {
            char *larger = (char *)realloc(out->text, out->used + out->used / 2 + 7 * (size_t)n);
            if (!larger) return -1;
            out->text = larger;
            out->room = out->used + out->used / 2 + 7 * (size_t)n;
        }
        if (compressed) {
            out->used += mpd_compress(out->counts, (size_t)n, out->text + out->used);
        } else {
            memcpy(out->text + out->used, out->counts, (size_t)n * sizeof(uint32_t));
            out->used += (size_t)n * sizeof(uint32_t);
        }
        out->ends[i - begin] = out->used;
    } while (++i < job->end);
    return 0;
}

/* rle(..., compressed) -> list of bytes: COCO's text, or uint32 counts. */
static PyObject *rle(PyObject *self, PyObject *args) {
    Job job = {0};
    Encoded out = {0};
    int compressed, failed = 0;
    PyObject *list;
    (void)self;
    if (!PyArg_ParseTuple(args, COMMON "i", COMMON_ARGS, &compressed) || prepare(&job) < 0) return release(&job), NULL;
    list = PyList_New(job.n);
    for (Py_ssize_t begin = 0; list && begin < job.n; begin = job.end) {
        Py_BEGIN_ALLOW_THREADS
        failed = encode_group(&job, begin, compressed, &out);
        Py_END_ALLOW_THREADS
        if (failed) PyErr_NoMemory();
        for (Py_ssize_t i = begin; !failed && i < job.end; i++) {
            const size_t start = i > begin ? out.ends[i - begin - 1] : 0, end = out.ends[i - begin];
            PyObject *bytes = PyBytes_FromStringAndSize(out.text + start, (Py_ssize_t)(end - start));
            failed = !bytes || PyList_SetItem(list, i, bytes) < 0;
        }
        if (failed) Py_CLEAR(list);
    }
    free(out.counts);
    free(out.text);
    release(&job);
    return list;
}

static PyMethodDef methods[] = {
    {"windows", windows, METH_VARARGS, "Write the windows of pixels and of grid cells."},
    {"fill", fill, METH_VARARGS, "Write bitmaps, soft masks, resized values or grid logits."},
    {"areas", areas, METH_VARARGS, "Write the area of each mask."},
    {"rle", rle, METH_VARARGS, "Return COCO RLE, compressed or not."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_compiled", "Decode instance masks; see maskprism_decode.h.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&module); }
