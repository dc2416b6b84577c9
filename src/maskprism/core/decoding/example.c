/* Decode one mask with maskprism_decode.h alone: cc -std=c99 -O3 -ffp-contract=off example.c -lm && ./a.out
 *
 * Prints COCO RLE at image size, the area, and the mask at the size of the grid. Prototypes are made here; a model gives
 * them as its second output, (K, h, w) or (h, w, K), and the box and the K coefficients in each row of its first. */
#include <stdio.h>
#include <stdlib.h>

#include "maskprism_decode.h"

enum { K = 2, H = 12, W = 16 };

int main(void) {
    const mpd_letterbox letterbox = {{45, 64}, {48, 64}, {45, 64}, {1, 0}, {H, W}}; /* 1 row of padding above 45 x 64 */
    const mpd_rule rule = {0, MPD_CROP_AFTER, 0, 0, MPD_UNPAD_WHOLE};     /* what Ultralytics does today */
    const float weights[K] = {1.0f, -0.5f}, box[4] = {9.5f, 6.0f, 50.0f, 40.25f};
    static int8_t data[K * H * W];
    const mpd_prototypes prototypes = {data, K, 1, 0.25f, -3, H * W, W, 1}; /* int8: scale .25, zero point -3 */
    uint8_t bitmap[H * W] = {0};
    static uint32_t counts[4096];
    static char text[7 * 4096];
    const int32_t frames[2] = {MPD_IMAGE, MPD_GRID};
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            data[y * W + x] = (int8_t)(60 - 2 * (x - 8) * (x - 8) - 3 * (y - 6) * (y - 6));
            data[H * W + y * W + x] = (int8_t)(12 * ((x + 2 * y) % 7));
        }
    for (int i = 0; i < 2; i++) {
        mpd_plan plan;
        int64_t area;
        const size_t bytes = mpd_plan_bytes(&letterbox, &rule, frames[i]);
        void *memory = malloc(bytes);
        if (mpd_plan_init(&plan, &letterbox, &rule, frames[i], memory, bytes) < 0) return 1;
        mpd_load(&plan, &prototypes, weights, box);
        const int64_t n = mpd_rle(&plan, counts, 4096, &area);
        if (n < 0) return 2; /* more than 4096 counts */
        printf("%dx%d area %d %.*s\n", plan.size[0], plan.size[1], (int)area, (int)mpd_compress(counts, (size_t)n, text), text);
        if (frames[i] == MPD_GRID) mpd_bitmap(&plan, bitmap + plan.at.pixels[0].start * W + plan.at.pixels[1].start, W);
        free(memory);
    }
    for (int i = 0; i < H * W; i++) printf("%c%s", bitmap[i] ? '#' : '.', i % W == W - 1 ? "\n" : "");
    return 0;
}
