// What the publishers share: a connection to NATS.
#include "common.h"

enum { BATCH_BYTES = 256 * 1024 };

static struct {
    int fd, info;
    long pongs;
    long acknowledged;  // messages that JetStream has stored
    size_t size;
    char replies[128 * 1024];
} nats;

static void send_all(const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(nats.fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) die("connection to NATS lost: %s", strerror(errno));
        data += sent;
        size -= sent;
    }
}

static void take_line(const char *line) {
    nats.info |= begins(line, "INFO");
    nats.pongs += begins(line, "PONG");
    if (begins(line, "-ERR")) die("NATS refused: %s", line);
    if (begins(line, "PING")) send_all("PONG\r\n", 6);
    if (*line != '{') return;
    if (!strstr(line, "\"seq\":") || strstr(line, "\"duplicate\"")) die("JetStream refused: %s", line);
    nats.acknowledged++;
}

// Read what NATS has sent, with the flags of recv(2).
static void take_replies(int flags) {
    ssize_t got = recv(nats.fd, nats.replies + nats.size, sizeof nats.replies - nats.size, flags);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("connection to NATS lost");
    nats.size += got;
    char *line = nats.replies, *end;
    for (; (end = memchr(line, '\n', nats.replies + nats.size - line)); line = end + 1) {
        *end = 0;
        take_line(line);
    }
    nats.size -= line - nats.replies;
    memmove(nats.replies, line, nats.size);
}

// Wait until NATS has read everything.
static void flush(void) {
    long before = nats.pongs;
    send_all("PING\r\n", 6);
    while (nats.pongs == before) take_replies(0);
}

// Connect; the next line of stdin has the login, as members of a JSON object, or nothing.
static void open_nats(char **argv) {
    char login[256], connect_line[512];
    read_command(login, sizeof login);
    struct sockaddr_in to = address_of(option(argv, "host", "127.0.0.1"), number(argv, "port", 4222));
    nats.fd = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    setsockopt(nats.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(nats.fd, (void *)&to, sizeof to)) die("cannot connect to NATS: %s", strerror(errno));
    while (!nats.info) take_replies(0);
    int size = snprintf(connect_line, sizeof connect_line,
                        "CONNECT {\"verbose\":false,\"headers\":true%s%s}\r\n", *login ? "," : "", login);
    send_all(connect_line, size);
    flush();
}

static void print_connected(void) {
    printf("{\"connected\":true}\n");
    fflush(stdout);
}
