// publisher: publishes numbered messages to NATS, evenly paced.
//
//   publisher port= subject= [host=127.0.0.1] [channels=1] [rate=1] [count=0] [prefix=] [suffix=] [data=128]
//
// `subject` may contain one %d, for the channel's number. The first line of stdin is the token (empty for none; it must
// not be on the command line), the second one starts the messages. Prints one JSON line when it is connected, and one
// when the server has accepted everything.
#include "nats.h"

enum { MAX_HEAD = 512 };

static size_t add_command(char *to, const char *subject, long channel, const struct message *m) {
    char name[256];
    snprintf(name, sizeof name, subject, (int)channel);
    int head = snprintf(to, MAX_HEAD, "PUB %s %zu\r\n", name, m->size);
    memcpy(to + head, m->bytes, m->size);
    memcpy(to + head + m->size, "\r\n", 2);
    return head + m->size + 2;
}

static void publish_all(struct pace *pace, const char *subject, long channels, struct message *m) {
    static char batch[BATCH_BYTES];
    uint32_t *sequences = calloc(channels, sizeof *sequences);
    for (long due; (due = wait_until_due(pace)); pace->sent += due) {
        size_t size = 0;
        int64_t now = now_us();
        for (long k = pace->sent; k < pace->sent + due; k++) {
            long channel = spread(k, channels);
            write_stamp(m->stamp, sequences[channel]++, now);
            size += add_command(batch + size, subject, channel, m);
            if (size + MAX_HEAD + m->size + 2 > sizeof batch || k == pace->sent + due - 1) {
                send_all(batch, size);
                size = 0;
            }
        }
        take_replies(MSG_DONTWAIT);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    static struct message m;
    char line[16];
    add_payload(&m, option(argv, "prefix", ""), number(argv, "data", 128), option(argv, "suffix", ""));
    open_nats(argv);
    print_connected();
    read_command(line, sizeof line);
    struct pace pace = {.start = now_us(), .rate = number(argv, "rate", 1), .count = number(argv, "count", 0)};
    publish_all(&pace, option(argv, "subject", ""), number(argv, "channels", 1), &m);
    flush();
    print_published(&pace);
}
