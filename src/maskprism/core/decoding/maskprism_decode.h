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
 * C99 or C++11, no dependencies, no allocation, no static data. The plan's memory belongs to the caller, is aligned as
 * malloc aligns it, and may be used again for the next plan. One plan serves one thread at a time. Floating-point
 * contraction must be off (-ffp-contract=off) for the same bits on every machine.
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

#ifdef __cplusplus /* the name of C's `restrict` in all C++ compilers */
#define MPD_RESTRICT __restrict
#else
#define MPD_RESTRICT restrict
#endif

enum { MPD_GRID, MPD_CANVAS, MPD_IMAGE };               /* frames: prototype grid, letterboxed input, image */
enum { MPD_CROP_NONE, MPD_CROP_BEFORE, MPD_CROP_AFTER }; /* the box cuts before resizing, or after it */
enum { MPD_UNPAD_FLOOR, MPD_UNPAD_ROUND, MPD_UNPAD_WHOLE };

typedef struct { /* how the image lies on the letterboxed input (canvas), in pixels: height or y, then width or x */
    int32_t image[2], canvas[2], content[2], offset[2], grid[2]; /* a stretch has content == canvas */
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

typedef struct { int32_t start, stop; } mpd_span; /* start..stop - 1; two of them, rows and columns, are a window */

typedef struct { /* of an instance: pixels, the samples and grid cells that they read, the cells that its crop leaves */
    mpd_span pixels[2], samples[2], grid[2], kept[2];
} mpd_windows;

typedef struct {
    mpd_letterbox letterbox;
    mpd_rule rule;
    int32_t frame, size[2], zoom, start[2]; /* the image starts there on the grid enlarged by `zoom` */
    float threshold;              /* of what is resized: 0, or .5 of probabilities; may be set after mpd_plan_init */
    mpd_axis zooms[2], axes[2];   /* grid -> enlarged grid -> frame */
    mpd_windows at;               /* of the loaded instance; samples are those of the image on the enlarged grid */
    int32_t plain;                /* 1: NaN, infinity or extreme values, so every pixel is computed */
    float largest;                /* what is larger, infinity, is in no mask */
    float *logits, *enlarged, *turned, *lines[4]; /* lines, states: scratch, each as long as the longest side */
    uint8_t *states;
    int32_t *rows, *crossed; /* scratch: the samples that a column depends on, those where it crosses the threshold */
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
static inline int32_t mpd_length(mpd_span span) { return span.stop - span.start; }

typedef struct { char *base; size_t used; } mpd_memory; /* base: NULL while the bytes are only counted */

static inline void *mpd_take(mpd_memory *memory, size_t count, size_t size) {
    size_t start = memory->used;
    memory->used += (count * size + 15) / 16 * 16;
    return memory->base ? memory->base + start : NULL;
}

/* How much smaller the image is in a frame of these sides, if all of it fits there. */
static inline double mpd_gain(const int32_t side[2], const int32_t image[2]) {
    const double y = side[0] / (double)image[0], x = side[1] / (double)image[1];
    return x < y ? x : y;
}

static inline int mpd_is_centred_fit(const mpd_letterbox *l) {
    const double gain = mpd_gain(l->canvas, l->image);
    int d, fits = 1;
    for (d = 0; d < 2; d++)
        fits &= fabs(l->content[d] - l->image[d] * gain) <= 1 && l->offset[d] == (l->canvas[d] - l->content[d]) / 2;
    return fits;
}

/* The smallest enlargement of the grid that puts the padding on whole pixels, at most the stride. */
static inline int32_t mpd_zoom(const mpd_letterbox *l) {
    const double y = nearbyint(l->canvas[0] / (double)l->grid[0]), x = nearbyint(l->canvas[1] / (double)l->grid[1]);
    int64_t rest = 1;
    int32_t d, zoom;
    for (zoom = 1; zoom < (x > y ? x : y); zoom *= 2) {
        for (d = 0, rest = 0; d < 2; d++)
            rest |= (int64_t)l->offset[d] * l->grid[d] * zoom % l->canvas[d] |
                    (int64_t)l->content[d] * l->grid[d] * zoom % l->canvas[d];
        if (!rest) break;
    }
    return zoom;
}

/* Where the image lies on one axis of the enlarged grid; at least one sample. */
static inline mpd_span mpd_content(const mpd_letterbox *l, int d, int32_t samples, int32_t unpad) {
    const double image = l->image[d] * mpd_gain(l->grid, l->image), pad = (samples - image) / 2;
    mpd_span span = {(int32_t)pad, (int32_t)(samples - pad)};
    if (unpad == MPD_UNPAD_WHOLE) {
        const double scale = samples / (double)l->canvas[d];
        span.start = (int32_t)nearbyint(l->offset[d] * scale);
        span.stop = span.start + (int32_t)nearbyint(l->content[d] * scale);
    } else if (unpad == MPD_UNPAD_ROUND) {
        const double rounded = (samples - nearbyint(image)) / 2;
        span.start = (int32_t)nearbyint(rounded - 0.1);
        span.stop = samples - (int32_t)nearbyint(rounded + 0.1);
    }
    span.start = mpd_min(span.start, samples - 1);
    span.stop = mpd_min(mpd_max(span.stop, span.start + 1), samples);
    return span;
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
        const int64_t place = (2 * (int64_t)i + 1) * source - target, unit = 2 * (int64_t)target;
        const int64_t clipped = place < 0 ? 0 : place > unit * (source - 1) ? unit * (source - 1) : place;
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
    const int32_t *sides[] = {l->grid, l->canvas, l->image};
    mpd_memory memory = {base, 0};
    int64_t cells = 1, samples = 1, pixels = 1;
    int32_t d, unpad, longest = 1;
    for (d = 0; d < 2; d++)
        if (mpd_min(mpd_min(l->image[d], l->canvas[d]), mpd_min(l->content[d], l->grid[d])) < 1 || l->offset[d] < 0 ||
            mpd_max(l->image[d], mpd_max(l->canvas[d], l->grid[d])) > 1 << 20 ||
            (int64_t)l->offset[d] + l->content[d] > l->canvas[d])
            return 0;
    if (frame < MPD_GRID || frame > MPD_IMAGE || rule->crop < MPD_CROP_NONE || rule->crop > MPD_CROP_AFTER ||
        rule->unpad < MPD_UNPAD_FLOOR || rule->unpad > MPD_UNPAD_WHOLE)
        return 0;
    memset(plan, 0, sizeof *plan);
    plan->letterbox = *l;
    plan->rule = *rule;
    plan->frame = frame;
    plan->threshold = rule->squash ? 0.5f : 0.0f;
    unpad = mpd_is_centred_fit(l) ? rule->unpad : MPD_UNPAD_WHOLE;
    plan->zoom = frame == MPD_IMAGE && unpad == MPD_UNPAD_WHOLE ? mpd_zoom(l) : 1;
    for (d = 0; d < 2; d++) {
        mpd_span content = {0, l->grid[d]};
        plan->size[d] = sides[frame][d];
        cells *= l->grid[d], samples *= (int64_t)l->grid[d] * plan->zoom, pixels *= plan->size[d];
        if (samples > 1 << 28 || pixels > (int64_t)UINT32_MAX) return 0; /* counts are 32 bits */
        if (frame == MPD_IMAGE) content = mpd_content(l, d, l->grid[d] * plan->zoom, unpad);
        plan->start[d] = content.start;
        mpd_axis_init(&plan->zooms[d], l->grid[d], l->grid[d] * plan->zoom, &memory);
        mpd_axis_init(&plan->axes[d], mpd_length(content), plan->size[d], &memory);
        longest = mpd_max(longest, mpd_max(plan->size[d], l->grid[d] * plan->zoom));
    }
    plan->logits = (float *)mpd_take(&memory, (size_t)cells, sizeof(float));
    plan->enlarged = (float *)mpd_take(&memory, plan->zoom > 1 ? (size_t)samples : 0, sizeof(float));
    plan->turned = (float *)mpd_take(&memory, (size_t)samples, sizeof(float));
    for (d = 0; d < 4; d++) plan->lines[d] = (float *)mpd_take(&memory, (size_t)longest, sizeof(float));
    plan->states = (uint8_t *)mpd_take(&memory, (size_t)longest, 1);
    plan->rows = (int32_t *)mpd_take(&memory, (size_t)longest, sizeof(int32_t));
    plan->crossed = (int32_t *)mpd_take(&memory, (size_t)longest, sizeof(int32_t));
    plan->largest = FLT_MAX;
    if (plan->zoom == 1 && plan->axes[0].source == plan->size[0] && plan->axes[1].source == plan->size[1])
        plan->largest = INFINITY;
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
    const size_t needed = mpd_plan_bytes(letterbox, rule, frame);
    if (!memory || !needed || needed > bytes) return -1;
    mpd_layout(plan, letterbox, rule, frame, (char *)memory);
    return 0;
}

/* ---- one instance: its windows and its logits ---- */

/* What the crop leaves of an axis of the frame `frame`; `box` holds x1, y1, x2, y2 on the letterboxed input. */
static inline mpd_span mpd_crop(const mpd_plan *plan, const float *box, int32_t frame, int d, int32_t padding) {
    const mpd_letterbox *l = &plan->letterbox;
    const int32_t length = frame == MPD_GRID ? l->grid[d] : plan->size[d];
    const int to_image = frame == MPD_IMAGE;
    const float scale = (float)(to_image ? l->content[d] / (double)l->image[d] : length / (double)l->canvas[d]);
    int32_t i, ends[2];
    mpd_span span = {0, 0};
    for (i = 0; i < 2; i++) { /* the pixels i with start - padding <= i < stop + padding */
        float edge = box[1 - d + 2 * i];
        if (to_image) {
            edge = (edge - (float)l->offset[d]) / scale;
            edge = edge < 0 ? 0 : edge > (float)length ? (float)length : edge; /* NaN stays */
        } else {
            edge *= scale;
        }
        if (!isfinite(edge)) return span;
        edge += (float)(i ? padding : -padding);
        edge = plan->rule.round_box ? rintf(edge) : ceilf(edge);
        ends[i] = edge < 0 ? 0 : edge > (float)length ? length : (int32_t)edge;
    }
    span.start = ends[0], span.stop = mpd_max(ends[0], ends[1]);
    return span;
}

/* The pixels that read at least one of some samples of an axis. */
static inline mpd_span mpd_touched(const mpd_axis *axis, int32_t start, int32_t stop) {
    mpd_span span = {0, 0};
    start = mpd_max(start, 0), stop = mpd_min(stop, axis->source);
    if (start >= stop) return span;
    span.start = start ? axis->first[start - 1] : 0, span.stop = axis->first[stop];
    while (span.start < span.stop && axis->low[span.start] < start && !(axis->fraction[span.start] > 0)) span.start++;
    return span;
}

static inline mpd_span mpd_read_by(const mpd_axis *axis, int32_t start, int32_t stop) {
    mpd_span span = {axis->low[start], mpd_max(axis->high[stop - 1], axis->low[stop - 1]) + 1};
    return span;
}

/* Set the windows of an instance; 1, or 0 where it has no pixel. */
static inline int mpd_locate(mpd_plan *plan, const float *box) {
    const int32_t crop = box ? plan->rule.crop : MPD_CROP_NONE, most = 1 << 20;
    const int32_t padding = mpd_max(-most, mpd_min(plan->rule.crop_padding, most));
    mpd_windows *at = &plan->at;
    int d;
    memset(at, 0, sizeof *at);
    for (d = 0; d < 2; d++) {
        const mpd_axis *zoom = &plan->zooms[d], *axis = &plan->axes[d];
        const int32_t start = plan->start[d];
        mpd_span pixels = {0, plan->size[d]}, kept = {0, plan->letterbox.grid[d]};
        if (crop == MPD_CROP_AFTER) pixels = mpd_crop(plan, box, plan->frame, d, 0);
        if (crop == MPD_CROP_BEFORE) {
            kept = mpd_crop(plan, box, MPD_GRID, d, padding);
            pixels = mpd_touched(zoom, kept.start, kept.stop);
            pixels = mpd_touched(axis, pixels.start - start, pixels.stop - start);
        }
        if (pixels.start >= pixels.stop) return memset(at, 0, sizeof *at), 0;
        at->pixels[d] = pixels;
        at->samples[d] = mpd_read_by(axis, pixels.start, pixels.stop);
        at->grid[d].start = at->samples[d].start + start, at->grid[d].stop = at->samples[d].stop + start;
        if (plan->zoom > 1) at->grid[d] = mpd_read_by(zoom, at->grid[d].start, at->grid[d].stop);
        at->kept[d].start = mpd_max(kept.start, at->grid[d].start);
        at->kept[d].stop = mpd_max(at->kept[d].start, mpd_min(kept.stop, at->grid[d].stop));
    }
    return 1;
}

/* Add prototypes to a row of logits, one after the other, so that the sum does not depend on the machine's registers. */
MPD_HOT static void mpd_add(float *MPD_RESTRICT row, const float *data, ptrdiff_t stride_k, const float *w, int32_t n,
                            int32_t columns) {
    int32_t k = 0, x;
    for (; k + 4 <= n; k += 4, w += 4, data += 4 * stride_k) {
        const float *a = data, *b = a + stride_k, *c = b + stride_k, *d = c + stride_k;
        for (x = 0; x < columns; x++) row[x] = (((row[x] + w[0] * a[x]) + w[1] * b[x]) + w[2] * c[x]) + w[3] * d[x];
    }
    for (; k < n; k++, w++, data += stride_k)
        for (x = 0; x < columns; x++) row[x] += w[0] * data[x];
}

/* Row `y` of prototypes k..k + n - 1, some columns, as floats, `stride` apart. */
MPD_HOT static void mpd_unpack(const mpd_prototypes *p, int32_t k, int32_t n, int32_t y, mpd_span columns, float *out,
                               ptrdiff_t stride) {
    const ptrdiff_t at = k * p->stride_k + y * p->stride_y + columns.start * p->stride_x, along = p->stride_x;
    const ptrdiff_t length = mpd_length(columns);
    const int32_t zero = p->zero_point;
    const float scale = p->scale;
    ptrdiff_t x;
    for (k = 0; k < n; k++) {
        float *MPD_RESTRICT line = out + k * stride;
        const float *floats = (const float *)p->data + at + k * p->stride_k;
        const int8_t *bytes = (const int8_t *)p->data + at + k * p->stride_k;
        if (p->is_int8)
            for (x = 0; x < length; x++) line[x] = (float)(bytes[x * along] - zero) * scale;
        else
            for (x = 0; x < length; x++) line[x] = floats[x * along];
    }
}

MPD_HOT static void mpd_squash(float *values, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) values[i] = mpd_sigmoid(values[i]);
}

static inline void mpd_mix_lines(float *MPD_RESTRICT out, const float *a, const float *b, float fraction, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) out[i] = mpd_mix(a[i], b[i], fraction);
}

/* `line` begins with the sample number `start` of the axis. */
static inline void mpd_mix_along(float *MPD_RESTRICT out, const float *line, int32_t start, const mpd_axis *axis,
                                  mpd_span to) {
    int32_t i;
    if (axis->source == axis->target)
        memcpy(out, line + (to.start - start), (size_t)mpd_length(to) * sizeof(float));
    else
        for (i = to.start; i < to.stop; i++)
            out[i - to.start] = mpd_mix(line[axis->low[i] - start], line[axis->high[i] - start], axis->fraction[i]);
}

/* Resize a window of samples to a window of pixels, first along rows, then between them. */
MPD_HOT static void mpd_resize(const float *samples, const mpd_span from[2], const mpd_axis axes[2],
                              const mpd_span to[2], float *out, ptrdiff_t stride, float *const lines[2]) {
    const int32_t resized = axes[0].source != axes[0].target;
    int32_t held[2] = {-1, -1}, y, i;
    for (y = to[0].start; y < to[0].stop; y++, out += stride) {
        const int32_t rows[2] = {axes[0].low[y], axes[0].high[y]};
        for (i = 0; i <= resized; i++) {
            const int32_t slot = rows[i] & 1;
            if (held[slot] != rows[i])
                mpd_mix_along(lines[slot], samples + (ptrdiff_t)(rows[i] - from[0].start) * mpd_length(from[1]),
                              from[1].start, &axes[1], to[1]);
            held[slot] = rows[i];
        }
        if (resized)
            mpd_mix_lines(out, lines[rows[0] & 1], lines[rows[1] & 1], axes[0].fraction[y], (size_t)mpd_length(to[1]));
        else
            memcpy(out, lines[rows[0] & 1], (size_t)mpd_length(to[1]) * sizeof(float));
    }
}

/* The samples of the loaded instance, row after row. */
static inline const float *mpd_samples(const mpd_plan *plan) { return plan->zoom > 1 ? plan->enlarged : plan->logits; }

/* What the outputs need besides the logits in plan->logits: squashed, where the rule does, enlarged and turned. */
MPD_HOT static void mpd_finish(mpd_plan *plan) {
    const mpd_windows *at = &plan->at;
    const ptrdiff_t height = mpd_length(at->samples[0]), width = mpd_length(at->samples[1]);
    const ptrdiff_t columns = mpd_length(at->grid[1]), cells = columns * mpd_length(at->grid[0]);
    const float *samples = mpd_samples(plan);
    ptrdiff_t y, x;
    uint32_t bits, odd = 0;
    for (y = at->kept[0].start; plan->rule.squash && y < at->kept[0].stop; y++)
        mpd_squash(plan->logits + (y - at->grid[0].start) * columns + (at->kept[1].start - at->grid[1].start),
                   (size_t)mpd_length(at->kept[1]));
    for (x = 0; x < cells; x++) { /* beyond 1e30 or within 1e-30: the signs of corners decide nothing */
        memcpy(&bits, plan->logits + x, sizeof bits);
        bits &= 0x7fffffffu;
        odd |= (uint32_t)(bits >= 0x7149f2cau) | (uint32_t)(bits - 1u < 0x0da24260u);
    }
    plan->plain = odd != 0;
    if (plan->zoom > 1) {
        const int32_t top = plan->start[0], left = plan->start[1];
        const mpd_span to[2] = {{at->samples[0].start + top, at->samples[0].stop + top},
                                {at->samples[1].start + left, at->samples[1].stop + left}};
        mpd_resize(plan->logits, at->grid, plan->zooms, to, plan->enlarged, width, plan->lines);
    }
    for (y = 0; y < height; y++)
        for (x = 0; x < width; x++) plan->turned[x * height + y] = samples[y * width + x];
}

/* Compute the logits of one instance where its pixels read them (probabilities, where the rule squashes first).
 * `plan->at.pixels` is then the window of pixels that it can touch. Returns 0 where that is empty. */
static inline int mpd_load(mpd_plan *plan, const mpd_prototypes *prototypes, const float *weights, const float *box) {
    const mpd_windows *at = &plan->at;
    const ptrdiff_t stride = plan->lines[1] - plan->lines[0];
    int32_t k, y;
    if (!mpd_locate(plan, box)) return 0;
    memset(plan->logits, 0, (size_t)mpd_length(at->grid[0]) * (size_t)mpd_length(at->grid[1]) * sizeof(float));
    for (y = at->kept[0].start; y < at->kept[0].stop; y++) {
        float *row = plan->logits + (ptrdiff_t)(y - at->grid[0].start) * mpd_length(at->grid[1]);
        for (k = 0; k < prototypes->n; k += 4) {
            const int32_t n = mpd_min(4, prototypes->n - k);
            mpd_unpack(prototypes, k, n, y, at->kept[1], plan->lines[0], stride);
            mpd_add(row + (at->kept[1].start - at->grid[1].start), plan->lines[0], stride, weights + k, n,
                    mpd_length(at->kept[1]));
        }
    }
    mpd_finish(plan);
    return 1;
}

/* ---- masks: column after column, where they begin and end ---- */

typedef struct { /* counts of RLE, or of a column of a bitmap the bytes that differ from those above them */
    uint32_t *counts;
    size_t capacity, n;
    int64_t base, last, area;
    int on, full;
    uint8_t *column;
    ptrdiff_t stride;
    mpd_span rows;
} mpd_changes;

static inline void mpd_change(mpd_changes *c, int32_t y) {
    const int64_t position = c->base + y;
    if (c->column) {
        if (y < c->rows.stop) c->column[(y - c->rows.start) * c->stride] ^= 1;
        return;
    }
    c->area += c->on ? position : -position;
    c->on = !c->on;
    if (!c->counts) return;
    if (position == c->last && c->n) { /* two changes at one pixel are none */
        c->last -= c->counts[--c->n];
    } else if (c->n < c->capacity) {
        c->counts[c->n++] = (uint32_t)(position - c->last);
        c->last = position;
    } else {
        c->full = 1;
    }
}

/* The first pixel of a cell with corners a and b on two sides of the threshold that is on the side of b. The mask ends
 * at `place` - 1/2. Pixels further from it than `near` need not be computed: rounding moves what is between a and b by less
 * than a quarter of that, if the threshold is 0. */
static inline int32_t mpd_cross(const mpd_axis *axis, int32_t cell, float a, float b, float threshold, mpd_span in) {
    const float *fraction = axis->fraction;
    const int side = a > threshold;
    const double place = ((double)cell + (double)((threshold - a) / (b - a)) + 0.5) * axis->scale + 0.5;
    const double near = axis->scale / (1 << 20), rest = place - (int32_t)place;
    int32_t y = mpd_max(in.start, mpd_min((int32_t)place, in.stop));
    if (threshold == 0 && rest > near && rest < 1 - near) return y;
    while (y > in.start && (mpd_mix(a, b, fraction[y - 1]) > threshold) != side) y--;
    while (y < in.stop && (mpd_mix(a, b, fraction[y]) > threshold) == side) y++;
    return y;
}

/* What the columns of pixels between the columns a and b of n samples depend on: the first sample, the last, and the
 * ends of cells whose corners lie on two sides of the threshold. Returns how many, or 0 where all samples are below. */
static inline int32_t mpd_gather(mpd_plan *plan, const float *a, const float *b, int32_t n) {
    uint8_t *states = plan->states, any = 0, mixed = 1;
    const float threshold = plan->threshold;
    int32_t *rows = plan->rows, i, count = 0;
    for (i = 0; i < n; i++) {
        states[i] = (uint8_t)((a[i] > threshold) + 2 * (b[i] > threshold));
        any |= states[i];
    }
    if (!any) return 0;
    for (i = 0; i < n - 1; i++) states[i] = (uint8_t)((states[i] != states[i + 1]) | ((states[i] + 1) & 2));
    states[n - 1] = 1;
    for (i = 0; i < n; mixed = states[i++]) {
        rows[count] = i;
        count += (mixed | states[i]) != 0;
    }
    for (i = 0; i < count; i++) plan->lines[1][i] = a[rows[i]], plan->lines[2][i] = b[rows[i]];
    return count;
}

/* The changes in a column of pixels; `values` are those of the samples that were gathered. */
static inline void mpd_column(mpd_plan *plan, const float *values, int32_t count, mpd_changes *changes) {
    const mpd_axis *axis = &plan->axes[0];
    const mpd_span rows = plan->at.pixels[0];
    const float threshold = plan->threshold;
    int32_t *crossed = plan->crossed, n = 0, i;
    for (i = 0; i < count - 1; i++) {
        crossed[n] = i;
        n += (values[i] > threshold) != (values[i + 1] > threshold);
    }
    if (values[0] > threshold) mpd_change(changes, rows.start);
    for (i = 0; i < n; i++) {
        const float *corners = values + crossed[i];
        const int32_t cell = plan->at.samples[0].start + plan->rows[crossed[i]];
        const mpd_span in = {mpd_max(axis->first[cell], rows.start), mpd_min(axis->first[cell + 1], rows.stop)};
        int32_t y = mpd_max(in.start, in.stop);
        if (in.start < in.stop) y = mpd_cross(axis, cell, corners[0], corners[1], threshold, in);
        mpd_change(changes, mpd_min(y, rows.stop));
    }
    if (values[count - 1] > threshold) mpd_change(changes, rows.stop);
}

/* The same, where every pixel is computed, from the whole column of samples. */
static inline void mpd_column_plain(mpd_plan *plan, const float *column, mpd_changes *changes) {
    const mpd_axis *axis = &plan->axes[0];
    const mpd_span rows = plan->at.pixels[0];
    int32_t y, top = plan->at.samples[0].start, on = 0;
    for (y = rows.start; y < rows.stop; y++) {
        const float a = column[axis->low[y] - top], b = column[axis->high[y] - top];
        const float value = axis->source == axis->target ? a : mpd_mix(a, b, axis->fraction[y]);
        if ((value > plan->threshold && value <= plan->largest) != on) mpd_change(changes, y), on = !on;
    }
    if (on) mpd_change(changes, rows.stop);
}

MPD_HOT static void mpd_columns(mpd_plan *plan, mpd_changes *changes) {
    const mpd_axis *axis = &plan->axes[1];
    const mpd_windows *at = &plan->at;
    const int32_t n = mpd_length(at->samples[0]), resized = axis->source != axis->target;
    int32_t x, count = 0, before = -1;
    for (x = at->pixels[1].start; x < at->pixels[1].stop && !changes->full; x++) {
        const float *a = plan->turned + (ptrdiff_t)(axis->low[x] - at->samples[1].start) * n;
        const float *b = plan->turned + (ptrdiff_t)(axis->high[x] - at->samples[1].start) * n;
        const int32_t cell = axis->low[x] + axis->high[x];
        changes->base = (int64_t)x * plan->size[0];
        if (plan->plain) {
            if (resized) mpd_mix_lines(plan->lines[0], a, b, axis->fraction[x], (size_t)n);
            mpd_column_plain(plan, resized ? plan->lines[0] : a, changes);
        } else {
            if (cell != before) count = mpd_gather(plan, a, b, n);
            mpd_mix_lines(plan->lines[0], plan->lines[1], plan->lines[2], axis->fraction[x], (size_t)count);
            if (count) mpd_column(plan, plan->lines[0], count, changes);
        }
        before = cell;
        if (changes->column) changes->column++;
    }
}

/* COCO's uncompressed RLE of the whole frame, column-major, off first. Returns how many counts there are, or -1 where
 * they are more than `capacity`. With `counts` NULL only the area is computed, and 0 returned. */
static inline int64_t mpd_rle(mpd_plan *plan, uint32_t *counts, size_t capacity, int64_t *area) {
    const int64_t end = (int64_t)plan->size[0] * plan->size[1];
    mpd_changes c = {0};
    c.counts = counts;
    c.capacity = capacity;
    mpd_columns(plan, &c);
    if (area) *area = c.area;
    if (!counts) return 0;
    if (c.last < end || !c.n) {
        c.full |= c.n == capacity;
        if (!c.full) counts[c.n++] = (uint32_t)(end - c.last);
    }
    return c.full ? -1 : (int64_t)c.n;
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

/* The mask in `plan->at.pixels`: 0 or 1, row after row, `stride` bytes apart. */
MPD_HOT static inline void mpd_bitmap(mpd_plan *plan, uint8_t *out, ptrdiff_t stride) {
    const int32_t height = mpd_length(plan->at.pixels[0]), width = mpd_length(plan->at.pixels[1]);
    mpd_changes changes = {0};
    int32_t x, y;
    for (y = 0; y < height; y++) memset(out + y * stride, 0, (size_t)width);
    changes.column = out, changes.stride = stride, changes.rows = plan->at.pixels[0];
    mpd_columns(plan, &changes);
    for (y = 1; y < height; y++) {
        const uint8_t *MPD_RESTRICT above = out + (y - 1) * stride;
        uint8_t *MPD_RESTRICT row = out + y * stride;
        for (x = 0; x < width; x++) row[x] ^= above[x];
    }
}

/* Probabilities in `plan->at.pixels`, row after row, `stride` floats apart; with `resized`, what the rule compares. */
static inline void mpd_soft(mpd_plan *plan, float *out, ptrdiff_t stride, int resized) {
    const mpd_span *p = plan->at.pixels;
    int32_t y;
    mpd_resize(mpd_samples(plan), plan->at.samples, plan->axes, p, out, stride, plan->lines);
    for (y = 0; y < mpd_length(p[0]) && !plan->rule.squash && !resized; y++)
        mpd_squash(out + y * stride, (size_t)mpd_length(p[1]));
}

#endif
