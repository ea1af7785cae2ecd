// publisher: publishes numbered messages to NATS, evenly paced.
//
//   publisher port= subject= [host=127.0.0.1] [channels=1] [rate=1] [count=0] [prefix=] [suffix=] [data=128]
//
// `subject` may contain one %d, for the channel's number. The first line of stdin is the token (empty for none; it must
// not be on the command line), the second one starts the messages. Prints one JSON line when it is connected, and one
// when the server has accepted everything.
#include "common.h"

enum { BATCH_BYTES = 256 * 1024, MAX_HEAD = 512 };

static int nats;

static void send_all(const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(nats, data, size, MSG_NOSIGNAL);
        if (sent < 0) die("connection to NATS lost: %s", strerror(errno));
        data += sent;
        size -= sent;
    }
}

// Read what NATS sends, answer its pings, exit at its errors. Returns whether `wanted` was among it.
static int take_replies(const char *wanted, int flags) {
    char replies[65536];
    ssize_t got = recv(nats, replies, sizeof replies - 1, flags);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) die("connection to NATS lost");
    replies[got] = 0;
    if (strstr(replies, "-ERR")) die("NATS refused: %s", replies);
    if (strstr(replies, "PING")) send_all("PONG\r\n", 6);
    return strstr(replies, wanted) != NULL;
}

static void flush(void) {
    send_all("PING\r\n", 6);
    while (!take_replies("PONG", 0)) continue;
}

static void open_nats(char **argv) {
    char token[256], connect_line[512];
    read_command(token, sizeof token);
    struct sockaddr_in to = address_of(option(argv, "host", "127.0.0.1"), number(argv, "port", 4222));
    nats = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    setsockopt(nats, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(nats, (void *)&to, sizeof to)) die("cannot connect to NATS: %s", strerror(errno));
    while (!take_replies("INFO", 0)) continue;
    int size = snprintf(connect_line, sizeof connect_line, "CONNECT {\"verbose\":false,\"auth_token\":\"%s\"}\r\n", token);
    send_all(connect_line, size);
    flush();
}

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
        take_replies("", MSG_DONTWAIT);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    static struct message m;
    char line[16];
    add_payload(&m, option(argv, "prefix", ""), number(argv, "data", 128), option(argv, "suffix", ""));
    open_nats(argv);
    printf("{\"connected\":true}\n");
    fflush(stdout);
    read_command(line, sizeof line);
    struct pace pace = {.start = now_us(), .rate = number(argv, "rate", 1), .count = number(argv, "count", 0)};
    publish_all(&pace, option(argv, "subject", ""), number(argv, "channels", 1), &m);
    flush();
    print_published(&pace);
}
