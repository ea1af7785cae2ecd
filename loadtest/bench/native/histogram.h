// Counts of times in microseconds, in 64 buckets for each octave: at most 1.6 % wide, and cheap to fill.
#include <stdint.h>
#include <stdio.h>

enum { BUCKETS = 3776 };

struct histogram {
    uint32_t counts[BUCKETS];
};

static void count_us(struct histogram *histogram, uint64_t us) {
    int shift = us < 64 ? 0 : 57 - __builtin_clzll(us);
    histogram->counts[shift * 64 + (us >> shift)]++;
}

// The middle of a bucket.
static uint64_t us_of(unsigned bucket) {
    if (bucket < 128) return bucket;
    int shift = bucket / 64 - 1;
    return ((uint64_t)(bucket % 64 + 64) << shift) + (1ULL << shift) / 2;
}

// JSON: [[microseconds, count], ...], ascending, without empty buckets.
static void print_histogram(const struct histogram *histogram) {
    const char *comma = "";
    putchar('[');
    for (unsigned i = 0; i < BUCKETS; i++)
        if (histogram->counts[i]) {
            printf("%s[%llu,%u]", comma, (unsigned long long)us_of(i), histogram->counts[i]);
            comma = ",";
        }
    putchar(']');
}
