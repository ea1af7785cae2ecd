// floor: the least that a fan-out server can do: one send() for each message and connection, in a bare C loop.
//
//   floor connections= rate= count= channels= prefix= suffix= data=128
//
// Prints its port as a JSON line, accepts `connections` WebSockets (with the key of the receiver), and answers each
// subscription before it comes. A line on stdin starts `count` messages at `rate` a second, each to the connections of
// one of the `channels`, in turn. Ends at the end of stdin.
#include "common.h"

static const char RESPONSE[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    "\x81\x08\"t\":\"ok\"";

static void make_frame(struct message *m, char **argv) {
    const size_t head = m->size = 4;
    add_payload(m, option(argv, "prefix", ""), number(argv, "data", 128), option(argv, "suffix", ""));
    size_t payload = m->size - head;
    if (payload < 126) die("a message of %zu bytes is shorter than any of ours", payload);
    m->bytes[0] = (char)0x81;
    m->bytes[1] = 126;
    m->bytes[2] = (char)(payload >> 8);
    m->bytes[3] = (char)payload;
}

static int listen_anywhere(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = address_of("127.0.0.1", 0);
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 4096)) die("cannot listen: %s", strerror(errno));
    getsockname(listener, (void *)&address, &size);
    printf("{\"port\":%d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static int accept_one(int listener) {
    char request[4096];
    size_t size = 0;
    int on = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0) die("cannot accept: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (!memmem(request, size, "\r\n\r\n", 4)) {
        ssize_t got = recv(fd, request + size, sizeof request - size, 0);
        if (got <= 0) die("a client went away in the handshake");
        size += got;
    }
    send(fd, RESPONSE, sizeof RESPONSE - 1, MSG_NOSIGNAL);
    return fd;
}

int main(int argc, char **argv) {
    (void)argc;
    long connections = number(argv, "connections", 1), channels = number(argv, "channels", 1);
    static struct message m;
    make_frame(&m, argv);
    int *fds = calloc(connections, sizeof *fds), listener = listen_anywhere();
    uint32_t *sequences = calloc(channels, sizeof *sequences);
    for (long i = 0; i < connections; i++) fds[i] = accept_one(listener);
    char line[16];
    read_command(line, sizeof line);
    struct pace pace = {.start = now_us(), .rate = number(argv, "rate", 1), .count = number(argv, "count", 0)};
    for (long due; (due = wait_until_due(&pace)); pace.sent += due)
        for (long k = pace.sent; k < pace.sent + due; k++) {
            long channel = spread(k, channels);
            write_stamp(m.stamp, sequences[channel]++, now_us());
            for (long i = channel; i < connections; i += channels) send(fds[i], m.bytes, m.size, MSG_NOSIGNAL);
        }
    print_published(&pace);
    read_command(line, sizeof line);
}
