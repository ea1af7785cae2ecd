// Growing texts, and a search in JSON that does not parse it.
#include "common.h"

struct text {
    char *data;
    size_t size, room;
};

static void append(struct text *text, const char *data, size_t size) {
    if (text->size + size > text->room) {
        text->room = 2 * (text->size + size);
        if (!(text->data = realloc(text->data, text->room))) die("out of memory");
    }
    memcpy(text->data + text->size, data, size);
    text->size += size;
}

static void replace(struct text *text, const char *data, size_t size) {
    text->size = 0;
    append(text, data, size);
    append(text, "\n", 1);
}

// The text after `key` in a message; NULL if it does not contain the key.
static const char *find(const char *payload, size_t size, const char *key) {
    const char *found = memmem(payload, size, key, strlen(key));
    return found ? found + strlen(key) : NULL;
}

static long number_at(const char *payload, size_t size, const char *key) {
    const char *found = find(payload, size, key);
    return found ? strtol(found, NULL, 10) : -1;
}
