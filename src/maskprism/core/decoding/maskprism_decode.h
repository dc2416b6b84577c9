/* maskprism_decode.h: instance masks from mask coefficients and prototypes (YOLO-seg, YOLACT, YOLOv5, YOLOv7).
 *
 * A mask is sum_k weights[k] * prototypes[k] on the prototype grid, resized bilinearly, thresholded and cropped to a box.
 * Where the corners of a grid cell lie on one side of the threshold, so do all pixels between them. Only the other
 * cells are searched, for the pixel where the mask begins or ends, so RLE needs neither a bitmap nor a resized map.
 *
 *     size_t bytes = mpd_plan_bytes(&letterbox, &rule, MPD_IMAGE);          0: sizes that make no sense
 *     mpd_plan_init(&plan, &letterbox, &rule, MPD_IMAGE, malloc(bytes), bytes);
 *     for every instance:
 *         mpd_load(&plan, &prototypes, weights, box);                       box on the letterboxed input, or NULL
 *                                                                           (a crop margin: widen the box)
 *         n = mpd_rle(&plan, counts, capacity, &area);                      or mpd_bitmap, mpd_soft
 *
 * C99, no dependencies, no allocation, no static data. The plan's memory belongs to the caller, is aligned as malloc
 * aligns it, and may be used again for the next plan. One plan serves one thread at a time. Floating-point contraction
 * must be off (-ffp-contract=off) for the same bits on every machine.
 *
 * SPDX-License-Identifier: MIT. Copyright (c) The maskprism authors.
 */
#ifndef MASKPRISM_DECODE_H
#define MASKPRISM_DECODE_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef MPD_HOT /* for example __attribute__((target_clones("avx2", "default"))) */
#define MPD_HOT
#endif

enum { MPD_GRID, MPD_CANVAS, MPD_IMAGE };               /* frames: prototype grid, letterboxed input, image */
enum { MPD_CROP_NONE, MPD_CROP_BEFORE, MPD_CROP_AFTER }; /* the box cuts before resizing, or after it */
enum { MPD_UNPAD_FLOOR, MPD_UNPAD_ROUND, MPD_UNPAD_WHOLE };

typedef struct { /* how the image lies on the letterboxed input (canvas), in pixels; a stretch has content == canvas */
    int32_t image_h, image_w, canvas_h, canvas_w, content_h, content_w, offset_y, offset_x, grid_h, grid_w;
} mpd_letterbox;

typedef struct { /* a MaskRule; `crop` is that of the chosen frame */
    int32_t squash, crop, crop_padding, round_box, unpad;
} mpd_rule;

typedef struct { /* value = (data - zero_point) * scale for int8; strides in elements: (h*w, w, 1) or (1, w*k, k) */
    const void *data;
    int32_t n, is_int8;
    float scale;
    int32_t zero_point;
    ptrdiff_t stride_k, stride_y, stride_x;
} mpd_prototypes;

typedef struct { /* pixel i of `target` lies between the samples low[i] and high[i] of `source` */
    int32_t source, target;
    int32_t *low, *high, *first; /* first[r]: the first pixel with low >= r; source + 1 entries */
    float *fraction;
    double scale; /* pixels per sample */
} mpd_axis;

typedef struct { int32_t y0, y1, x0, x1; } mpd_window; /* rows y0..y1 - 1, columns x0..x1 - 1 */

typedef struct {
    mpd_letterbox letterbox;
    mpd_rule rule;
    int32_t frame, h, w, zoom, start_y, start_x; /* the image starts there on the grid enlarged by `zoom` */
    float threshold;                   /* of what is resized: 0, or .5 of probabilities; may be set after mpd_plan_init */
    mpd_axis zoom_y, zoom_x, y, x;     /* grid -> enlarged grid -> frame */
    mpd_window window, enlarged, grid; /* of the loaded instance: its pixels, and the samples that they read */
    int32_t plain;                     /* 1: NaN, infinity or extreme values, so every pixel is computed */
    float largest;                     /* what is larger, infinity, is in no mask */
    float *logits, *turned, *lines[8]; /* lines: scratch, each as long as the longest side */
    uint8_t *states[5];
} mpd_plan;

/* ---- arithmetic: the one definition of every value ---- */

/* Between a and b, rounded once: as a fused multiply-add, which float64 holds exactly. */
static inline float mpd_mix(float a, float b, float fraction) {
    float step = b - a;
    return (float)((double)fraction * (double)step + (double)a);
}

static inline float mpd_sigmoid(float x) {
    double z = x == x ? (double)x : 0.0, n, r, p, e;
    int64_t bits;
    int k;
    z = z < -80.0 ? -80.0 : z > 80.0 ? 80.0 : z;
    n = floor(z * 1.4426950408889634 + 0.5);
    r = z - n * 0.6931471805599453;
    for (k = 10, p = 1.0; k > 0; k--) p = 1.0 + r * p * (1.0 / k);
    bits = (int64_t)(int32_t)(n + 1023.0) * ((int64_t)1 << 52); /* 2 to the power of n */
    memcpy(&e, &bits, sizeof e);
    e *= p;
    return x == x ? 0.5f * (1.0f + (float)((e - 1.0) / (e + 1.0))) : x;
}

/* ---- the plan: everything that the instances of an image share ---- */

static inline int32_t mpd_min(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t mpd_max(int32_t a, int32_t b) { return a > b ? a : b; }

typedef struct { char *base; size_t used; } mpd_memory; /* base: NULL while the bytes are only counted */

static inline void *mpd_take(mpd_memory *memory, size_t count, size_t size) {
    size_t start = memory->used;
    memory->used += (count * size + 15) / 16 * 16;
    return memory->base ? memory->base + start : NULL;
}

static inline int mpd_is_centred_fit(const mpd_letterbox *l) {
    double gain_y = l->canvas_h / (double)l->image_h, gain_x = l->canvas_w / (double)l->image_w;
    double gain = gain_x < gain_y ? gain_x : gain_y;
    return fabs(l->content_h - l->image_h * gain) <= 1 && l->offset_y == (l->canvas_h - l->content_h) / 2 &&
           fabs(l->content_w - l->image_w * gain) <= 1 && l->offset_x == (l->canvas_w - l->content_w) / 2;
}

/* The smallest enlargement of the grid that puts the padding on whole pixels, at most the stride. */
static inline int64_t mpd_zoom(const mpd_letterbox *l) {
    double stride_y = nearbyint(l->canvas_h / (double)l->grid_h), stride_x = nearbyint(l->canvas_w / (double)l->grid_w);
    double stride = stride_x > stride_y ? stride_x : stride_y;
    int64_t zoom = 1;
    while (zoom < stride && ((int64_t)l->offset_y * l->grid_h * zoom % l->canvas_h ||
                             (int64_t)l->offset_x * l->grid_w * zoom % l->canvas_w ||
                             (int64_t)l->content_h * l->grid_h * zoom % l->canvas_h ||
                             (int64_t)l->content_w * l->grid_w * zoom % l->canvas_w))
        zoom *= 2;
    return zoom;
}

/* Where the image lies on one axis of the enlarged grid; at least one sample. */
static inline void mpd_content(int32_t offset, int32_t content, int32_t canvas, int32_t image, int32_t grid,
                               double gain, int32_t unpad, int32_t *start, int32_t *length) {
    int32_t stop;
    if (unpad == MPD_UNPAD_WHOLE) {
        double scale = grid / (double)canvas;
        *start = (int32_t)nearbyint(offset * scale);
        stop = *start + (int32_t)nearbyint(content * scale);
    } else if (unpad == MPD_UNPAD_FLOOR) {
        double pad = (grid - image * gain) / 2;
        *start = (int32_t)pad;
        stop = (int32_t)(grid - pad);
    } else {
        double pad = (grid - nearbyint(image * gain)) / 2;
        *start = (int32_t)nearbyint(pad - 0.1);
        stop = grid - (int32_t)nearbyint(pad + 0.1);
    }
    *start = mpd_min(*start, grid - 1);
    *length = mpd_min(mpd_max(stop, *start + 1), grid) - *start;
}

/* Aligned pixel centres, ends repeated: pixel i lies at ((2 i + 1) source - target) / (2 target) between the samples. */
static inline void mpd_axis_init(mpd_axis *axis, int32_t source, int32_t target, mpd_memory *memory) {
    int32_t i, r = 0;
    axis->source = source;
    axis->target = target;
    axis->scale = (double)target / source;
    axis->low = (int32_t *)mpd_take(memory, (size_t)target, sizeof(int32_t));
    axis->high = (int32_t *)mpd_take(memory, (size_t)target, sizeof(int32_t));
    axis->fraction = (float *)mpd_take(memory, (size_t)target, sizeof(float));
    axis->first = (int32_t *)mpd_take(memory, (size_t)source + 1, sizeof(int32_t));
    if (!memory->base) return;
    for (i = 0; i < target; i++) {
        int64_t place = (2 * (int64_t)i + 1) * source - target, unit = 2 * (int64_t)target;
        int64_t clipped = place < 0 ? 0 : place > unit * (source - 1) ? unit * (source - 1) : place;
        axis->low[i] = (int32_t)(clipped / unit);
        axis->high[i] = place < 0 ? 0 : mpd_min(axis->low[i] + 1, source - 1);
        axis->fraction[i] = (float)((double)(clipped % unit) / (double)unit);
        while (r <= axis->low[i]) axis->first[r++] = i;
    }
    while (r <= source) axis->first[r++] = target;
}

/* Lay the plan out in `base` and return its bytes; with NULL they are only counted. 0 for bad sizes. */
static inline size_t mpd_layout(mpd_plan *plan, const mpd_letterbox *l, const mpd_rule *rule, int32_t frame,
                                char *base) {
    const int32_t *side = &l->image_h;
    int32_t i, span_y, span_x, longest, centred, unpad;
    int64_t enlarged_h, enlarged_w, zoom = 1;
    mpd_memory memory;
    double gain;
    memory.base = base;
    memory.used = 0;
    for (i = 0; i < 10; i++)
        if ((i == 6 || i == 7) ? side[i] < 0 : side[i] < 1 || side[i] > 1 << 20) return 0;
    if ((int64_t)l->offset_y + l->content_h > l->canvas_h || (int64_t)l->offset_x + l->content_w > l->canvas_w ||
        frame < MPD_GRID || frame > MPD_IMAGE || rule->crop < MPD_CROP_NONE || rule->crop > MPD_CROP_AFTER ||
        rule->unpad < MPD_UNPAD_FLOOR || rule->unpad > MPD_UNPAD_WHOLE || (int64_t)l->grid_h * l->grid_w > 1 << 28)
        return 0;
    centred = mpd_is_centred_fit(l);
    unpad = centred ? rule->unpad : MPD_UNPAD_WHOLE;
    if (frame == MPD_IMAGE && unpad == MPD_UNPAD_WHOLE) zoom = mpd_zoom(l);
    enlarged_h = l->grid_h * zoom;
    enlarged_w = l->grid_w * zoom;
    if (enlarged_h > 1 << 24 || enlarged_w > 1 << 24) return 0;
    plan->letterbox = *l;
    plan->rule = *rule;
    plan->frame = frame;
    plan->threshold = rule->squash ? 0.5f : 0.0f;
    plan->h = frame == MPD_GRID ? l->grid_h : frame == MPD_CANVAS ? l->canvas_h : l->image_h;
    plan->w = frame == MPD_GRID ? l->grid_w : frame == MPD_CANVAS ? l->canvas_w : l->image_w;
    if ((int64_t)plan->h * plan->w > (int64_t)UINT32_MAX) return 0; /* counts are 32 bits */
    plan->zoom = (int32_t)zoom;
    plan->start_y = plan->start_x = 0;
    span_y = (int32_t)enlarged_h;
    span_x = (int32_t)enlarged_w;
    if (frame == MPD_IMAGE) {
        double gain_y = l->grid_h / (double)l->image_h, gain_x = l->grid_w / (double)l->image_w;
        gain = gain_x < gain_y ? gain_x : gain_y;
        mpd_content(l->offset_y, l->content_h, l->canvas_h, l->image_h, span_y, gain, unpad, &plan->start_y, &span_y);
        mpd_content(l->offset_x, l->content_w, l->canvas_w, l->image_w, span_x, gain, unpad, &plan->start_x, &span_x);
    }
    mpd_axis_init(&plan->zoom_y, l->grid_h, (int32_t)enlarged_h, &memory);
    mpd_axis_init(&plan->zoom_x, l->grid_w, (int32_t)enlarged_w, &memory);
    mpd_axis_init(&plan->y, span_y, plan->h, &memory);
    mpd_axis_init(&plan->x, span_x, plan->w, &memory);
    longest = mpd_max(mpd_max(plan->h, plan->w), (int32_t)(enlarged_h > enlarged_w ? enlarged_h : enlarged_w));
    plan->logits = (float *)mpd_take(&memory, (size_t)l->grid_h * (size_t)l->grid_w, sizeof(float));
    plan->turned = (float *)mpd_take(&memory, (size_t)l->grid_h * (size_t)l->grid_w, sizeof(float));
    for (i = 0; i < 8; i++) plan->lines[i] = (float *)mpd_take(&memory, (size_t)longest, sizeof(float));
    for (i = 0; i < 5; i++) plan->states[i] = (uint8_t *)mpd_take(&memory, (size_t)longest, 1);
    plan->largest = plan->y.source == plan->h && plan->x.source == plan->w && zoom == 1 ? INFINITY : FLT_MAX;
    memset(&plan->window, 0, sizeof plan->window);
    return memory.used;
}

/* Bytes of memory that a plan needs; 0 for a letterbox, rule or frame that there cannot be. */
static inline size_t mpd_plan_bytes(const mpd_letterbox *letterbox, const mpd_rule *rule, int32_t frame) {
    mpd_plan plan;
    return mpd_layout(&plan, letterbox, rule, frame, NULL);
}

/* Returns 0, or -1 where `bytes` are too few or the sizes make no sense. */
static inline int mpd_plan_init(mpd_plan *plan, const mpd_letterbox *letterbox, const mpd_rule *rule, int32_t frame,
                                void *memory, size_t bytes) {
    size_t needed = mpd_plan_bytes(letterbox, rule, frame);
    if (!memory || !needed || needed > bytes) return -1;
    mpd_layout(plan, letterbox, rule, frame, (char *)memory);
    return 0;
}

/* ---- one instance: its windows and its logits ---- */

/* The pixels i of an axis with start - padding <= i < stop + padding. */
static inline void mpd_between(float start, float stop, int32_t length, float padding, int round_box, int32_t *first,
                               int32_t *end) {
    *first = *end = 0;
    if (!isfinite(start) || !isfinite(stop)) return;
    start = round_box ? rintf(start - padding) : ceilf(start - padding);
    stop = round_box ? rintf(stop + padding) : ceilf(stop + padding);
    *first = start < 0 ? 0 : start > (float)length ? length : (int32_t)start;
    *end = stop < 0 ? 0 : stop > (float)length ? length : (int32_t)stop;
    if (*end < *first) *end = *first;
}

static inline float mpd_edge(float edge, int32_t offset, double gain, int32_t length, int to_image) {
    if (!to_image) return edge * (float)gain;
    edge = (edge - (float)offset) / (float)gain;
    return edge < 0 ? 0 : edge > (float)length ? (float)length : edge; /* NaN stays */
}

/* What the crop leaves of the frame `frame`; `box` holds x1, y1, x2, y2 on the letterboxed input. */
static inline mpd_window mpd_crop(const mpd_plan *plan, const float *box, int32_t frame, int32_t padding) {
    const mpd_letterbox *l = &plan->letterbox;
    int32_t h = frame == MPD_GRID ? l->grid_h : plan->h, w = frame == MPD_GRID ? l->grid_w : plan->w;
    double gain_y = 1, gain_x = 1;
    float edges[4];
    mpd_window window;
    int i, to_image = frame == MPD_IMAGE;
    if (to_image) gain_y = l->content_h / (double)l->image_h, gain_x = l->content_w / (double)l->image_w;
    if (frame == MPD_GRID) gain_y = l->grid_h / (double)l->canvas_h, gain_x = l->grid_w / (double)l->canvas_w;
    for (i = 0; i < 4; i++)
        edges[i] = i % 2 ? mpd_edge(box[i], l->offset_y, gain_y, l->image_h, to_image)
                         : mpd_edge(box[i], l->offset_x, gain_x, l->image_w, to_image);
    mpd_between(edges[1], edges[3], h, (float)padding, plan->rule.round_box, &window.y0, &window.y1);
    mpd_between(edges[0], edges[2], w, (float)padding, plan->rule.round_box, &window.x0, &window.x1);
    return window;
}

/* The pixels that read at least one of the samples a..b - 1 of an axis. */
static inline void mpd_touched(const mpd_axis *axis, int32_t *a, int32_t *b) {
    int32_t start, end;
    *a = mpd_max(*a, 0);
    *b = mpd_min(*b, axis->source);
    if (*a >= *b) { *a = *b = 0; return; }
    start = *a ? axis->first[*a - 1] : 0;
    end = axis->first[*b];
    while (start < end && axis->low[start] < *a && !(axis->fraction[start] > 0)) start++;
    *a = start;
    *b = mpd_max(start, end);
}

static inline void mpd_read_by(const mpd_axis *axis, int32_t a, int32_t b, int32_t shift, int32_t *start, int32_t *end) {
    *start = axis->low[a] + shift;
    *end = mpd_max(axis->high[b - 1], axis->low[b - 1]) + 1 + shift;
}

/* Add prototypes to a row of logits, one after the other, so that the sum does not depend on the machine's registers. */
MPD_HOT static void mpd_add(float *restrict row, const float *data, ptrdiff_t stride_k, const float *w, int32_t n,
                            int32_t columns) {
    int32_t k = 0, x;
    for (; k + 4 <= n; k += 4, w += 4, data += 4 * stride_k) {
        const float *a = data, *b = a + stride_k, *c = b + stride_k, *d = c + stride_k;
        for (x = 0; x < columns; x++) row[x] = (((row[x] + w[0] * a[x]) + w[1] * b[x]) + w[2] * c[x]) + w[3] * d[x];
    }
    for (; k < n; k++, w++, data += stride_k)
        for (x = 0; x < columns; x++) row[x] += w[0] * data[x];
}

/* Row `y` of prototypes k..k + n - 1, columns x0..x1 - 1, as floats, `stride` apart. */
MPD_HOT static void mpd_unpack(const mpd_prototypes *p, int32_t k, int32_t n, int32_t y, int32_t x0, int32_t x1, float *out,
                               ptrdiff_t stride) {
    const ptrdiff_t at = k * p->stride_k + y * p->stride_y + x0 * p->stride_x, along = p->stride_x;
    const int32_t zero = p->zero_point;
    const float scale = p->scale;
    ptrdiff_t x, columns = x1 - x0;
    for (k = 0; k < n; k++) {
        float *restrict line = out + k * stride;
        if (!p->is_int8) {
            const float *data = (const float *)p->data + at + k * p->stride_k;
            if (along == 1)
                memcpy(line, data, (size_t)columns * sizeof(float));
            else
                for (x = 0; x < columns; x++) line[x] = data[x * along];
        } else {
            const int8_t *data = (const int8_t *)p->data + at + k * p->stride_k;
            if (along == 1)
                for (x = 0; x < columns; x++) line[x] = (float)(data[x] - zero) * scale;
            else
                for (x = 0; x < columns; x++) line[x] = (float)(data[x * along] - zero) * scale;
        }
    }
}

/* The weighted sum in the cells of a window, added to `out`; `lines` are four of the plan's. */
static inline void mpd_product(const mpd_prototypes *p, const float *weights, const mpd_window *cells, float *out,
                               ptrdiff_t width, float *const *lines) {
    const int32_t columns = cells->x1 - cells->x0;
    int32_t k, y;
    for (y = cells->y0; y < cells->y1; y++, out += width) {
        if (!p->is_int8 && p->stride_x == 1) {
            const float *data = (const float *)p->data + y * p->stride_y + cells->x0;
            mpd_add(out, data, p->stride_k, weights, p->n, columns);
            continue;
        }
        for (k = 0; k < p->n; k += 4) {
            const int32_t some = mpd_min(4, p->n - k);
            mpd_unpack(p, k, some, y, cells->x0, cells->x1, lines[0], lines[1] - lines[0]);
            mpd_add(out, lines[0], lines[1] - lines[0], weights + k, some, columns);
        }
    }
}

MPD_HOT static void mpd_squash(float *values, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) values[i] = mpd_sigmoid(values[i]);
}

/* Set the windows of an instance; 1, or 0 where it has no pixel. */
static inline int mpd_locate(mpd_plan *plan, const float *box, mpd_window *kept) {
    mpd_window *p = &plan->window, *e = &plan->enlarged, *g = &plan->grid;
    const int32_t crop = box ? plan->rule.crop : MPD_CROP_NONE;
    const int32_t padding = mpd_max(-(1 << 20), mpd_min(plan->rule.crop_padding, 1 << 20));
    if (crop == MPD_CROP_BEFORE) {
        *p = *kept = mpd_crop(plan, box, MPD_GRID, padding);
        if (kept->y0 < kept->y1 && kept->x0 < kept->x1) {
            mpd_touched(&plan->zoom_y, &p->y0, &p->y1);
            mpd_touched(&plan->zoom_x, &p->x0, &p->x1);
            p->y0 -= plan->start_y, p->y1 -= plan->start_y, p->x0 -= plan->start_x, p->x1 -= plan->start_x;
            mpd_touched(&plan->y, &p->y0, &p->y1);
            mpd_touched(&plan->x, &p->x0, &p->x1);
        }
    } else if (crop == MPD_CROP_AFTER) {
        *p = mpd_crop(plan, box, plan->frame, 0);
    } else {
        p->y0 = p->x0 = 0, p->y1 = plan->h, p->x1 = plan->w;
    }
    if (p->y0 >= p->y1 || p->x0 >= p->x1) {
        memset(p, 0, sizeof *p);
        return 0;
    }
    mpd_read_by(&plan->y, p->y0, p->y1, plan->start_y, &e->y0, &e->y1);
    mpd_read_by(&plan->x, p->x0, p->x1, plan->start_x, &e->x0, &e->x1);
    mpd_read_by(&plan->zoom_y, e->y0, e->y1, 0, &g->y0, &g->y1);
    mpd_read_by(&plan->zoom_x, e->x0, e->x1, 0, &g->x0, &g->x1);
    if (crop != MPD_CROP_BEFORE) *kept = *g;
    kept->y0 = mpd_max(kept->y0, g->y0), kept->y1 = mpd_min(kept->y1, g->y1);
    kept->x0 = mpd_max(kept->x0, g->x0), kept->x1 = mpd_min(kept->x1, g->x1);
    if (kept->y0 >= kept->y1 || kept->x0 >= kept->x1) kept->y0 = kept->y1 = g->y0, kept->x0 = kept->x1 = g->x0;
    return 1;
}

/* What the outputs need besides the logits in plan->logits: squashed, where the rule does, and turned. */
static inline void mpd_finish(mpd_plan *plan, const mpd_window *kept) {
    const mpd_window *g = &plan->grid;
    const ptrdiff_t width = g->x1 - g->x0, height = g->y1 - g->y0;
    ptrdiff_t y, x;
    uint32_t bits, odd = 0;
    for (y = kept->y0; plan->rule.squash && y < kept->y1; y++)
        mpd_squash(plan->logits + (y - g->y0) * width + (kept->x0 - g->x0), (size_t)(kept->x1 - kept->x0));
    for (y = 0; y < width * height; y++) { /* beyond 1e30 or within 1e-30: the signs of corners decide nothing */
        memcpy(&bits, plan->logits + y, sizeof bits);
        bits &= 0x7fffffffu;
        odd |= (uint32_t)(bits >= 0x7149f2cau) | (uint32_t)(bits - 1u < 0x0da24260u);
    }
    plan->plain = odd != 0;
    for (y = 0; y < height; y++)
        for (x = 0; x < width; x++) plan->turned[x * height + y] = plan->logits[y * width + x];
}

/* Compute the logits of one instance where its pixels read them (probabilities, where the rule squashes first).
 * `plan->window` is then the window of pixels that it can touch. Returns 0 where that is empty. */
static inline int mpd_load(mpd_plan *plan, const mpd_prototypes *prototypes, const float *weights, const float *box) {
    const mpd_window *g = &plan->grid;
    mpd_window kept;
    ptrdiff_t width;
    if (!mpd_locate(plan, box, &kept)) return 0;
    width = g->x1 - g->x0;
    memset(plan->logits, 0, (size_t)(width * (g->y1 - g->y0)) * sizeof(float));
    mpd_product(prototypes, weights, &kept, plan->logits + (kept.y0 - g->y0) * width + (kept.x0 - g->x0), width, plan->lines);
    mpd_finish(plan, &kept);
    return 1;
}

/* ---- RLE: column after column ---- */

typedef struct { uint32_t *counts; size_t capacity, n; int64_t last, area; int on, full; } mpd_runs;

static inline void mpd_toggle(mpd_runs *runs, int64_t position) {
    runs->area += runs->on ? position : -position;
    runs->on = !runs->on;
    if (!runs->counts) return;
    if (position == runs->last && runs->n) { /* two changes at one pixel are none */
        runs->last -= runs->counts[--runs->n];
    } else if (runs->n < runs->capacity) {
        runs->counts[runs->n++] = (uint32_t)(position - runs->last);
        runs->last = position;
    } else {
        runs->full = 1;
    }
}

/* The first pixel of a cell with corners a and b on two sides of the threshold that is on the side of b. */
static inline int32_t mpd_cross(const mpd_axis *axis, int32_t cell, float a, float b, float threshold, int32_t from,
                                int32_t to) {
    const int side = a > threshold;
    int32_t y;
    if (to - from <= 8) { /* mixing is monotonous, so counting the pixels on the side of a is enough */
        int32_t count = 0;
        for (y = from; y < to; y++) count += (mpd_mix(a, b, axis->fraction[y]) > threshold) == side;
        return from + count;
    } else {
        /* the first pixel whose centre lies behind the level, up to rounding */
        const double place = ((double)cell + (double)((threshold - a) / (b - a)) + 0.5) * axis->scale + 0.5;
        y = place < from ? from : place > to ? to : (int32_t)place;
    }
    while (y > from && (mpd_mix(a, b, axis->fraction[y - 1]) > threshold) != side) y--;
    while (y < to && (mpd_mix(a, b, axis->fraction[y]) > threshold) == side) y++;
    return y;
}

MPD_HOT static void mpd_mix_lines(float *restrict out, const float *a, const float *b, float fraction, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) out[i] = mpd_mix(a[i], b[i], fraction);
}

/* `line` begins with the sample number `start` of the axis. */
MPD_HOT static void mpd_mix_along(float *restrict out, const float *line, int32_t start, const mpd_axis *axis, int32_t from,
                                 int32_t to) {
    int32_t i;
    if (axis->source == axis->target)
        memcpy(out, line + (from - start), (size_t)(to - from) * sizeof(float));
    else
        for (i = from; i < to; i++)
            out[i - from] = mpd_mix(line[axis->low[i] - start], line[axis->high[i] - start], axis->fraction[i]);
}

MPD_HOT static int mpd_above(uint8_t *restrict states, const float *values, float threshold, size_t n) {
    size_t i;
    uint8_t any = 0;
    for (i = 0; i < n; i++) {
        states[i] = values[i] > threshold;
        any |= states[i];
    }
    return any;
}

/* The next index from `i` on, below `n`, where the states a and b differ; n where they do not. */
static inline size_t mpd_differ(const uint8_t *a, const uint8_t *b, size_t i, size_t n) {
    uint64_t p, q;
    for (; i + 8 <= n; i += 8) {
        memcpy(&p, a + i, 8);
        memcpy(&q, b + i, 8);
        if (p != q) break;
    }
    while (i < n && a[i] == b[i]) i++;
    return i;
}

/* Column `column` of the enlarged grid, rows plan->enlarged.y0 and on. */
static inline const float *mpd_column(mpd_plan *plan, int32_t column, float *line, int32_t *held) {
    const mpd_window *g = &plan->grid, *e = &plan->enlarged;
    const ptrdiff_t height = g->y1 - g->y0;
    const float *a = plan->turned + (plan->zoom_x.low[column] - g->x0) * height;
    const float *b = plan->turned + (plan->zoom_x.high[column] - g->x0) * height;
    if (plan->zoom == 1) return a;
    if (*held != column) {
        mpd_mix_lines(plan->lines[5], a, b, plan->zoom_x.fraction[column], (size_t)height);
        mpd_mix_along(line, plan->lines[5], g->y0, &plan->zoom_y, e->y0, e->y1);
        *held = column;
    }
    return line;
}

static inline void mpd_column_runs(mpd_plan *plan, const float *column, int64_t base, mpd_runs *runs) {
    const mpd_axis *axis = &plan->y;
    const int32_t top = plan->enlarged.y0 - plan->start_y, y0 = plan->window.y0, y1 = plan->window.y1;
    const size_t n = (size_t)(plan->enlarged.y1 - plan->enlarged.y0);
    uint8_t *states = plan->states[0];
    size_t i;
    if (!mpd_above(states, column, plan->threshold, n)) return;
    if (states[0]) mpd_toggle(runs, base + y0);
    for (i = mpd_differ(states, states + 1, 0, n - 1); i < n - 1; i = mpd_differ(states, states + 1, i + 1, n - 1)) {
        const int32_t cell = top + (int32_t)i;
        const int32_t from = mpd_max(axis->first[cell], y0), to = mpd_min(axis->first[cell + 1], y1);
        int32_t y = mpd_max(from, to);
        if (from < to) y = mpd_cross(axis, cell, column[i], column[i + 1], plan->threshold, from, to);
        mpd_toggle(runs, base + mpd_min(y, y1));
    }
    if (states[n - 1]) mpd_toggle(runs, base + y1);
}

static inline void mpd_column_plain(mpd_plan *plan, const float *column, int64_t base, mpd_runs *runs) {
    const mpd_axis *axis = &plan->y;
    const int32_t top = plan->enlarged.y0 - plan->start_y, y1 = plan->window.y1;
    int32_t y;
    int on = 0;
    for (y = plan->window.y0; y < y1; y++) {
        const float a = column[axis->low[y] - top], b = column[axis->high[y] - top];
        const float value = axis->source == axis->target ? a : mpd_mix(a, b, axis->fraction[y]);
        if ((value > plan->threshold && value <= plan->largest) != on) mpd_toggle(runs, base + y), on = !on;
    }
    if (on) mpd_toggle(runs, base + y1);
}

/* COCO's uncompressed RLE of the whole frame, column-major, off first. Returns how many counts there are, or -1 where
 * they are more than `capacity`. With `counts` NULL only the area is computed, and 0 returned. */
static inline int64_t mpd_rle(mpd_plan *plan, uint32_t *counts, size_t capacity, int64_t *area) {
    const mpd_window *p = &plan->window;
    const size_t n = (size_t)(plan->enlarged.y1 - plan->enlarged.y0);
    int32_t held[2] = {-1, -1}, x;
    mpd_runs runs = {0};
    runs.counts = counts;
    runs.capacity = capacity;
    for (x = p->x0; x < p->x1 && !runs.full; x++) {
        const int32_t low = plan->x.low[x] + plan->start_x, high = plan->x.high[x] + plan->start_x;
        const float *a = mpd_column(plan, low, plan->lines[low & 1], &held[low & 1]);
        const float *b = mpd_column(plan, high, plan->lines[high & 1], &held[high & 1]);
        const float *column = a;
        if (plan->x.source != plan->x.target) {
            mpd_mix_lines(plan->lines[2], a, b, plan->x.fraction[x], n);
            column = plan->lines[2];
        }
        (plan->plain ? mpd_column_plain : mpd_column_runs)(plan, column, (int64_t)x * plan->h, &runs);
    }
    if (area) *area = runs.area;
    if (!counts) return 0;
    if (runs.last < (int64_t)plan->h * plan->w || !runs.n) {
        runs.full |= runs.n == capacity;
        if (!runs.full) counts[runs.n++] = (uint32_t)((int64_t)plan->h * plan->w - runs.last);
    }
    return runs.full ? -1 : (int64_t)runs.n;
}

/* COCO's compressed RLE: at most 7 characters for each count, no ending zero. Returns their number. */
static inline size_t mpd_compress(const uint32_t *counts, size_t n, char *text) {
    size_t i, length = 0;
    for (i = 0; i < n; i++) {
        int64_t x = (int64_t)counts[i] - (i > 2 ? (int64_t)counts[i - 2] : 0);
        int more = 1;
        while (more) {
            int64_t bits = x & 31, rest = (x - bits) / 32;
            more = (bits & 16) ? rest != -1 : rest != 0;
            text[length++] = (char)((more ? bits | 32 : bits) + 48);
            x = rest;
        }
    }
    return length;
}

/* ---- bitmaps and soft masks: row after row ---- */

/* Row `row` of the enlarged grid, columns plan->enlarged.x0 and on. `held` says which rows the lines hold. */
static inline const float *mpd_row(mpd_plan *plan, int32_t row, int32_t held[4]) {
    const mpd_window *g = &plan->grid, *e = &plan->enlarged;
    const ptrdiff_t width = g->x1 - g->x0;
    float *line = plan->lines[row & 1];
    int i;
    if (plan->zoom == 1) return plan->logits + (row - g->y0) * width;
    if (held[row & 1] != row) {
        const int32_t rows[2] = {plan->zoom_y.low[row], plan->zoom_y.high[row]};
        for (i = 0; i < 2; i++) {
            const int slot = 2 + (rows[i] & 1);
            if (held[slot] != rows[i])
                mpd_mix_along(plan->lines[slot], plan->logits + (rows[i] - g->y0) * width, g->x0, &plan->zoom_x, e->x0, e->x1);
            held[slot] = rows[i];
        }
        mpd_mix_lines(line, plan->lines[2 + (rows[0] & 1)], plan->lines[2 + (rows[1] & 1)], plan->zoom_y.fraction[row],
                      (size_t)(e->x1 - e->x0));
        held[row & 1] = row;
    }
    return line;
}

/* Row `y` of the frame in the window: what the rule compares with its threshold. */
static inline void mpd_values(mpd_plan *plan, int32_t y, int32_t held[4], float *out) {
    const mpd_window *p = &plan->window;
    const int32_t start = plan->enlarged.x0 - plan->start_x;
    const float *low = mpd_row(plan, plan->y.low[y] + plan->start_y, held);
    mpd_mix_along(out, low, start, &plan->x, p->x0, p->x1);
    if (plan->y.source != plan->y.target) {
        const float *high = mpd_row(plan, plan->y.high[y] + plan->start_y, held);
        mpd_mix_along(plan->lines[6], high, start, &plan->x, p->x0, p->x1);
        mpd_mix_lines(plan->lines[7], out, plan->lines[6], plan->y.fraction[y], (size_t)(p->x1 - p->x0));
        memcpy(out, plan->lines[7], (size_t)(p->x1 - p->x0) * sizeof(float));
    }
}

/* For a row of cells, which have corners on both sides. Their states are those of the samples above and below. */
MPD_HOT static void mpd_mixed(uint8_t *restrict mixed, const uint8_t *above, const uint8_t *below, size_t n) {
    size_t i;
    for (i = 0; i + 1 < n; i++)
        mixed[i] = (uint8_t)((above[i] ^ above[i + 1]) | (above[i] ^ below[i]) | (below[i] ^ below[i + 1]));
    if (n) mixed[n - 1] = above[n - 1] ^ below[n - 1];
}

MPD_HOT static void mpd_fill(uint8_t *restrict out, const uint8_t *state, const uint8_t *change, uint8_t row, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) out[i] = state[i] ^ (uint8_t)(change[i] <= row);
}

/* The mask in `plan->window`: 0 or 1, row after row, `stride` bytes apart. */
static inline void mpd_bitmap(mpd_plan *plan, uint8_t *out, ptrdiff_t stride) {
    const mpd_window *p = &plan->window;
    const mpd_axis *rows = &plan->y, *columns = &plan->x;
    const int32_t first = plan->enlarged.x0 - plan->start_x, n = plan->enlarged.x1 - plan->enlarged.x0;
    const size_t width = (size_t)(p->x1 - p->x0);
    uint8_t *sides = plan->states[0], *change = plan->states[1], *above = plan->states[2], *below = plan->states[3];
    uint8_t *mixed = plan->states[4];
    int32_t held[4] = {-1, -1, -1, -1}, y, end, i, x;
    for (y = p->y0; plan->plain && y < p->y1; y++) {
        uint8_t *row = out + (y - p->y0) * stride;
        mpd_values(plan, y, held, plan->lines[5]);
        for (i = 0; i < (int32_t)width; i++) {
            const float value = plan->lines[5][i];
            row[i] = value > plan->threshold && value <= plan->largest;
        }
    }
    for (; y < p->y1; y = end) { /* a band of rows between the same two rows of samples */
        const int32_t cell = rows->low[y];
        const float *a = mpd_row(plan, cell + plan->start_y, held);
        const float *b = mpd_row(plan, mpd_min(cell + 1, rows->source - 1) + plan->start_y, held);
        end = mpd_min(mpd_min(rows->first[cell + 1], p->y1), y + 254);
        if (cell + 1 >= plan->enlarged.y1 - plan->start_y) b = a; /* no row of the window reads the next one */
        mpd_above(above, a, plan->threshold, (size_t)n);
        mpd_above(below, b, plan->threshold, (size_t)n);
        mpd_mixed(mixed, above, below, (size_t)n);
        memset(change, 255, width); /* the row of this band from which on a pixel is on the other side */
        for (i = 0; i < n; i++) {
            const int32_t from = mpd_max(columns->first[first + i], p->x0), here = i;
            const int32_t next = mpd_min(i + 1, n - 1);
            if (!mixed[i]) while (i + 1 < n && !mixed[i + 1]) i++;
            const int32_t to = mpd_min(columns->first[first + i + 1], p->x1);
            if (from >= to) continue;
            if (!mixed[here]) {
                memset(sides + (from - p->x0), above[here], (size_t)(to - from));
                continue;
            }
            for (x = from; x < to; x++) {
                const float upper = mpd_mix(a[i], a[next], columns->fraction[x]);
                const float lower = mpd_mix(b[i], b[next], columns->fraction[x]);
                const uint8_t side = upper > plan->threshold;
                sides[x - p->x0] = side;
                if (side != (lower > plan->threshold))
                    change[x - p->x0] = (uint8_t)(mpd_cross(rows, cell, upper, lower, plan->threshold, y, end) - y);
            }
        }
        for (i = y; i < end; i++) mpd_fill(out + (i - p->y0) * stride, sides, change, (uint8_t)(i - y), width);
    }
}

/* Probabilities in `plan->window`, row after row, `stride` floats apart; with `resized`, what the rule compares. */
static inline void mpd_soft(mpd_plan *plan, float *out, ptrdiff_t stride, int resized) {
    const mpd_window *p = &plan->window;
    int32_t held[4] = {-1, -1, -1, -1}, y;
    for (y = p->y0; y < p->y1; y++) {
        float *row = out + (y - p->y0) * stride;
        mpd_values(plan, y, held, row);
        if (!plan->rule.squash && !resized) mpd_squash(row, (size_t)(p->x1 - p->x0));
    }
}

#endif
