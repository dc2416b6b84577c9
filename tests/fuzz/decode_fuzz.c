/* Random instances through maskprism_decode.h, for AddressSanitizer and UndefinedBehaviorSanitizer.
 *
 * Every buffer is a malloc of exactly the size that the header asks for. The sparse outputs are compared with those in
 * which every pixel is computed, and with one another. Usage: decode_fuzz CASES [SEED] */
#include <stdio.h>
#include <stdlib.h>

#include "maskprism_decode.h"

static uint64_t state;

static uint32_t draw(uint32_t n) { /* 0..n - 1 */
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

static float number(void) { return (float)((int)draw(2001) - 1000) / 250.0f; }

static float odd(void) {
    const float values[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-42f, -1e-42f, 0.0f, -0.0f, 1e31f};
    return values[draw(sizeof values / sizeof *values)];
}

#define CHECK(condition) \
    if (!(condition)) { \
        fprintf(stderr, "case %ld: %s does not hold (line %d)\n", number_of_case, #condition, __LINE__); \
        exit(1); \
    }

static void try_one(long number_of_case) {
    const int32_t stride = 1 << draw(4), largest = draw(20) ? 40 : 300;
    mpd_letterbox l;
    mpd_rule rule;
    mpd_plan plan;
    mpd_prototypes p = {0};
    const int32_t frame = (int32_t)draw(3);
    int extreme = draw(6) == 0;
    memset(&l, 0, sizeof l);
    for (int d = 0; d < 2; d++) {
        l.image[d] = 1 + (int32_t)draw((uint32_t)largest);
        l.canvas[d] = 1 + (int32_t)draw(64);
        l.content[d] = 1 + (int32_t)draw((uint32_t)l.canvas[d]);
        l.offset[d] = (int32_t)draw((uint32_t)(l.canvas[d] - l.content[d] + 1));
    }
    const int fitted = draw(2) == 1; /* an image that is fitted and centred */
    for (int d = 0; d < 2; d++) {
        if (fitted) {
            l.content[d] = mpd_max(1, (int32_t)nearbyint(l.image[d] * mpd_gain(l.canvas, l.image)));
            l.offset[d] = (l.canvas[d] - l.content[d]) / 2;
        }
        l.grid[d] = draw(8) ? mpd_max(1, l.canvas[d] / stride) : 1 + (int32_t)draw(30);
    }
    rule.squash = (int32_t)draw(2), rule.crop = (int32_t)draw(3), rule.crop_padding = draw(3) ? 0 : (int32_t)draw(7) - 3;
    rule.round_box = (int32_t)draw(2), rule.unpad = (int32_t)draw(3);
    if (draw(100) == 0) ((int32_t *)&l)[draw(10)] = (int32_t)draw(3) - 1; /* sizes that make no sense are refused */
    const size_t bytes = mpd_plan_bytes(&l, &rule, frame);
    if (!bytes) return;
    void *memory = malloc(bytes);
    CHECK(mpd_plan_init(&plan, &l, &rule, frame, memory, bytes - 1) == -1);
    CHECK(mpd_plan_init(&plan, &l, &rule, frame, memory, bytes) == 0);

    p.n = 1 + (int32_t)draw(9);
    p.is_int8 = (int32_t)draw(2), p.scale = p.is_int8 ? 0.03f : 1.0f, p.zero_point = (int32_t)draw(9) - 4;
    const int32_t cells = l.grid[0] * l.grid[1];
    const int channels_last = (int)draw(2);
    p.stride_k = channels_last ? 1 : cells, p.stride_x = channels_last ? p.n : 1;
    p.stride_y = (ptrdiff_t)l.grid[1] * p.stride_x;
    void *data = malloc((size_t)(p.n * cells) * (p.is_int8 ? 1 : sizeof(float)));
    for (int32_t i = 0; i < p.n * cells; i++) {
        if (p.is_int8) ((int8_t *)data)[i] = (int8_t)((int)draw(256) - 128);
        else ((float *)data)[i] = extreme && draw(20) == 0 ? odd() : number();
    }
    p.data = data;

    for (int instance = 0; instance < 3; instance++) {
        float *weights = (float *)malloc((size_t)p.n * sizeof(float)), box[4];
        for (int32_t k = 0; k < p.n; k++) weights[k] = extreme && draw(20) == 0 ? odd() : number();
        for (int i = 0; i < 4; i++)
            box[i] = draw(40) ? (float)((int)draw(4u * (uint32_t)mpd_max(l.canvas[0], l.canvas[1])) - 40) / 3.0f : odd() * 4;
        if (draw(3)) { /* mostly the right way round */
            if (box[0] > box[2]) { float t = box[0]; box[0] = box[2]; box[2] = t; }
            if (box[1] > box[3]) { float t = box[1]; box[1] = box[3]; box[3] = t; }
        }
        const int any = mpd_load(&plan, &p, weights, draw(8) ? box : NULL);
        const mpd_span rows = plan.at.pixels[0], columns = plan.at.pixels[1];
        const size_t height = (size_t)mpd_length(rows), width = (size_t)mpd_length(columns);
        const size_t total = (size_t)plan.size[0] * (size_t)plan.size[1];
        CHECK(any == (height && width));
        CHECK(rows.start >= 0 && rows.start <= rows.stop && rows.stop <= plan.size[0]);
        CHECK(columns.start >= 0 && columns.start <= columns.stop && columns.stop <= plan.size[1]);
        uint32_t *counts = (uint32_t *)malloc((total + 1) * sizeof *counts), *others, *fewer;
        others = (uint32_t *)malloc((total + 1) * sizeof *others);
        int64_t area, other_area, only_area;
        const int64_t n = mpd_rle(&plan, counts, total + 1, &area);
        CHECK(n > 0);
        CHECK(mpd_rle(&plan, NULL, 0, &only_area) == 0 && only_area == area);
        fewer = (uint32_t *)malloc((size_t)n * sizeof *fewer);
        if (n > 1) CHECK(mpd_rle(&plan, fewer, (size_t)draw((uint32_t)(n - 1)), NULL) == -1);
        uint8_t *bitmap = (uint8_t *)malloc(height * width + 1), *mask = (uint8_t *)calloc(total, 1);
        if (any) mpd_bitmap(&plan, bitmap, (ptrdiff_t)width);
        size_t at = 0;
        for (int64_t i = 0; i < n; i++) {
            CHECK(counts[i] > 0 || i == 0);
            for (uint32_t j = 0; j < counts[i]; j++, at++) {
                CHECK(at < total);
                mask[at] = i & 1;
                area -= i & 1;
            }
        }
        CHECK(at == total && area == 0);
        for (int32_t y = 0; y < plan.size[0]; y++)
            for (int32_t x = 0; x < plan.size[1]; x++) {
                const int inside = y >= rows.start && y < rows.stop && x >= columns.start && x < columns.stop;
                const size_t place = inside ? (size_t)(y - rows.start) * width + (size_t)(x - columns.start) : 0;
                CHECK(mask[(size_t)x * (size_t)plan.size[0] + (size_t)y] == (inside ? bitmap[place] : 0));
            }
        if (any) { /* every pixel computed gives the same */
            float *values = (float *)malloc(height * width * sizeof *values);
            mpd_soft(&plan, values, (ptrdiff_t)width, 1);
            for (size_t i = 0; i < height * width; i++) CHECK(bitmap[i] == (values[i] > plan.threshold && values[i] <= plan.largest));
            mpd_soft(&plan, values, (ptrdiff_t)width, 0);
            for (size_t i = 0; i < height * width; i++) CHECK(extreme || (values[i] >= 0 && values[i] <= 1));
            plan.plain = 1;
            const int64_t m = mpd_rle(&plan, others, total + 1, &other_area);
            CHECK(m == n && memcmp(counts, others, (size_t)n * sizeof *counts) == 0 && other_area == only_area);
            mpd_bitmap(&plan, bitmap, (ptrdiff_t)width);
            for (size_t i = 0; i < height * width; i++)
                CHECK(bitmap[i] == mask[(size_t)(columns.start + (int32_t)(i % width)) * (size_t)plan.size[0] + (size_t)rows.start + i / width]);
            free(values);
        }
        char *text = (char *)malloc(7 * (size_t)n);
        CHECK(mpd_compress(counts, (size_t)n, text) <= 7 * (size_t)n);
        free(text), free(bitmap), free(mask), free(fewer), free(others), free(counts), free(weights);
    }
    free(data);
    free(memory);
}

int main(int argc, char **argv) {
    const long cases = argc > 1 ? atol(argv[1]) : 1000;
    const uint64_t seed = argc > 2 ? (uint64_t)atol(argv[2]) : 0;
    for (long i = 0; i < cases; i++) {
        state = (seed + (uint64_t)i) * 0x9e3779b97f4a7c15u + 1;
        draw(2);
        try_one(i);
    }
    printf("%ld cases\n", cases);
    return 0;
}
