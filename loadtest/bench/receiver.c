// receiver: open many WebSockets, subscribe each, then read and check every message of every connection.
//
//   receiver host= port= path= connections= [first=0] [channels=1] [subprotocol=] [subscribe=TEXT] [answer=TEXT]
//            [stream=0] [expect=0] [stalled=0] [ballast=TEXT] [window=64]
//
// `subscribe` may hold one %d, the channel's number: connections, counted from `first`, take the channels in turn. A
// connection is ready when a message that contains `answer` came back. Then one JSON line is printed, and messages are read until every connection that reads
// has had `expect` of them, or a line comes on stdin. The first `stalled` connections send
// `ballast` too, and are not read until then. `stream=1`:
// a frame is a piece of a byte stream with any number of messages (NATS over WebSocket). Ends with a JSON line.
#include "common.h"
#include "histogram.h"

#include <sys/epoll.h>

enum { EVENTS = 1024, RECV_BYTES = 256 * 1024, STASH_BYTES = 1024 * 1024, STALLED_MS = 10000, QUIET_MS = 1000 };
enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==", ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";  // RFC 6455, 1.3

struct connection {
    int fd;
    enum { HANDSHAKE, SUBSCRIBING, READY, ENDED } state;
    uint32_t next;   // the number of the message that must come
    uint32_t holes;  // numbers skipped and not seen since
    uint32_t stash_size;
    char *stash;  // the incomplete frame at the end of what was read last
    int close_code;
};

static struct {
    const char *host, *path, *subprotocol, *subscribe, *answer, *ballast;
    int port, connections, first, channels, stream, stalled, window;
    long expect;
} want;

static struct {
    long messages, bytes, in_order, reordered, duplicated, closed;
    int64_t first_us, last_us;
    struct histogram latency;
} seen;

static struct connection *connections;
static int epoll, ready, in_flight;
static char buffer[STASH_BYTES + RECV_BYTES];

static void send_frame(struct connection *c, int opcode, const char *payload, size_t size) {
    char frame[4096];
    size_t head = size < 126 ? 6 : 8;
    if (size + head > sizeof frame) die("a message of %zu bytes is too long to send", size);
    frame[0] = (char)(0x80 | opcode);
    frame[1] = (char)(0x80 | (size < 126 ? size : 126));
    if (size >= 126) frame[2] = (char)(size >> 8), frame[3] = (char)size;
    memset(frame + head - 4, 0, 4);  // a mask of zeros
    memcpy(frame + head, payload, size);
    send(c->fd, frame, head + size, MSG_NOSIGNAL);
}

static void watch(int fd, struct connection *c) {
    struct epoll_event event = {EPOLLIN, {.ptr = c}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("cannot watch descriptor %d: %s", fd, strerror(errno));
}

static void open_connection(int index) {
    struct connection *c = &connections[index];
    int on = 1, small = 4096;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) die("connection %d: %s", index, strerror(errno));
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (index < want.stalled) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct sockaddr_in from = address_of("127.0.0.1", 0), to = address_of(want.host, want.port);
    from.sin_addr.s_addr = htonl(0x7f000001 + (want.first + index) % 64);  // each has its own range of ports
    if (bind(c->fd, (void *)&from, sizeof from) || connect(c->fd, (void *)&to, sizeof to))
        die("connection %d cannot be opened: %s", index, strerror(errno));
    char request[2048];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                        want.path, want.host, want.port, KEY, *want.subprotocol ? "Sec-WebSocket-Protocol: " : "",
                        want.subprotocol, *want.subprotocol ? "\r\n" : "");
    send(c->fd, request, size, MSG_NOSIGNAL);
    watch(c->fd, c);
    in_flight++;
}

static void subscribe(struct connection *c) {
    char message[2048];
    int size = snprintf(message, sizeof message, want.subscribe, (want.first + (int)(c - connections)) % want.channels);
    send_frame(c, TEXT, message, size);
    if (c - connections < want.stalled) send_frame(c, TEXT, want.ballast, strlen(want.ballast));
    c->state = SUBSCRIBING;
}

// How many of `size` bytes the answer to the handshake takes; 0 while it is incomplete.
static size_t take_handshake(struct connection *c, const char *data, size_t size) {
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = end + 4 - data;
    if (!memmem(data, head, " 101 ", 5) || !memmem(data, head, ACCEPT, strlen(ACCEPT)))
        die("connection %d: the handshake was refused: %.*s", (int)(c - connections), (int)size, data);
    subscribe(c);
    return head;
}

static void take_answer(struct connection *c, const char *payload, size_t size) {
    if (memmem(payload, size, "\"t\":\"err\"", 9)) die("the subscription was refused: %.*s", (int)size, payload);
    if (!memmem(payload, size, want.answer, strlen(want.answer))) return;
    c->state = READY;
    ready++;
    in_flight--;
}

static void check_stamp(struct connection *c, const char *stamp, int64_t now) {
    uint32_t sequence = read_8_digits(stamp + 2);
    int64_t sent = read_8_digits(stamp + 10) * 100000000 + read_8_digits(stamp + 18);
    count_us(&seen.latency, now > sent ? now - sent : 0);
    seen.messages++;
    seen.last_us = now;
    if (!seen.first_us) seen.first_us = now;
    if (sequence >= c->next) {
        c->holes += sequence - c->next;
        c->next = sequence + 1;
        seen.in_order++;
    } else if (c->holes) {
        c->holes--;
        seen.reordered++;
    } else {
        seen.duplicated++;
    }
}

// The stamp of a message mostly stands where it stood in the one before.
static const char *find_stamp(const char *payload, size_t size) {
    static size_t last;
    if (last + STAMP_SIZE <= size && payload[last] == '@' && payload[last + 1] == '@') return payload + last;
    const char *stamp = memmem(payload, size, "@@", 2);
    if (!stamp || stamp + STAMP_SIZE > payload + size) return NULL;
    last = stamp - payload;
    return stamp;
}

static void take_data(struct connection *c, const char *payload, size_t size, int64_t now) {
    if (c->state == SUBSCRIBING) {
        take_answer(c, payload, size);
        return;
    }
    const char *stamp = find_stamp(payload, size), *end = payload + size;
    while (stamp) {
        check_stamp(c, stamp, now);
        stamp = want.stream ? memmem(stamp + STAMP_SIZE, end - stamp - STAMP_SIZE, "@@", 2) : NULL;
        if (stamp && stamp + STAMP_SIZE > end) return;  // cut in two: the count will tell
    }
}

// Take the whole frames of `data`; how many bytes they are.
static size_t take_frames(struct connection *c, const char *data, size_t size, int64_t now) {
    size_t at = 0;
    while (size - at >= 2) {
        const unsigned char *frame = (const unsigned char *)data + at;
        size_t head = 2, length = frame[1];
        if (length == 126) head = 4;
        if (length == 127) head = 10;
        if (size - at < head) break;
        if (head > 2) length = 0;
        for (size_t i = 2; i < head; i++) length = length << 8 | frame[i];
        if (length + head > STASH_BYTES) die("a frame of %zu bytes is longer than expected", length);
        if (size - at < head + length) break;
        int opcode = frame[0] & 15;
        const char *payload = (const char *)frame + head;
        if (!(frame[0] & 0x80) || frame[0] & 0x70) die("unexpected frame: first byte %#x", frame[0]);
        if (opcode == TEXT || opcode == BINARY) take_data(c, payload, length, now);
        if (opcode == PING) send_frame(c, PONG, payload, length);
        if (opcode == CLOSE) c->close_code = length >= 2 ? frame[head] << 8 | frame[head + 1] : 1005;
        at += head + length;
    }
    return at;
}

static void end_connection(struct connection *c) {
    if (c->state != READY) die("connection %d was closed before it was subscribed", (int)(c - connections));
    c->state = ENDED;
    seen.closed++;
    epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

// Read once what has come.
static void read_connection(struct connection *c) {
    memcpy(buffer, c->stash, c->stash_size);
    ssize_t got = recv(c->fd, buffer + c->stash_size, RECV_BYTES, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        end_connection(c);
        return;
    }
    int64_t now = now_us();
    seen.bytes += got;
    size_t size = c->stash_size + got;
    size_t used = c->state == HANDSHAKE ? take_handshake(c, buffer, size) : 0;
    if (c->state != HANDSHAKE) used += take_frames(c, buffer + used, size - used, now);
    c->stash_size = size - used;
    if (c->stash_size && !(c->stash = realloc(c->stash, c->stash_size))) die("out of memory");
    memcpy(c->stash, buffer + used, c->stash_size);
}

// One turn of the loop; false when stdin has something to say, or nothing came within `timeout_ms` (-1: wait for ever).
static int turn(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout_ms), go_on = count != 0;
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c)
            read_connection(c);
        else
            go_on = 0;
    }
    return go_on;
}

static void open_all(void) {
    int64_t start = now_us();
    for (int opened = 0; ready < want.connections;) {
        while (opened < want.connections && in_flight < want.window) open_connection(opened++);
        if (!turn(-1)) exit(1);
    }
    printf("{\"ready\":%d,\"seconds\":%.6f}\n", ready, (now_us() - start) / 1e6);
    fflush(stdout);
    seen.bytes = 0;
    for (int i = 0; i < want.stalled; i++) epoll_ctl(epoll, EPOLL_CTL_DEL, connections[i].fd, NULL);
}

static void receive_all(void) {
    long total = want.expect * (want.connections - want.stalled);
    while (turn(-1))
        if (total && seen.in_order + seen.reordered >= total) return;
}

// Read the stalled connections to their end after all, and tell how each has ended.
static void print_stalled(void) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    for (int i = 0; i < want.stalled; i++) watch(connections[i].fd, &connections[i]);
    int64_t until = now_us() + STALLED_MS * 1000;
    while (want.stalled && now_us() < until && turn(QUIET_MS)) continue;
    int open = 0, cut = 0, told = 0;
    for (int i = 0; i < want.stalled; i++) {
        struct connection *c = &connections[i];
        if (c->close_code) told++;
        else if (c->state == ENDED) cut++;
        else open++;
    }
    printf(",\"stalled\":{\"open\":%d,\"cut\":%d,\"told\":%d}", open, cut, told);
}

static void print_result(int64_t cpu) {
    long lost = 0;
    for (int i = want.stalled; i < want.connections; i++) {
        lost += connections[i].holes;
        if (want.expect > connections[i].next) lost += want.expect - connections[i].next;
    }
    printf("{\"messages\":%ld,\"bytes\":%ld,\"lost\":%ld,\"duplicated\":%ld,\"reordered\":%ld,\"closed\":%ld,"
           "\"first_us\":%lld,\"last_us\":%lld,\"cpu_us\":%lld,\"latency\":",
           seen.messages, seen.bytes, lost, seen.duplicated, seen.reordered, seen.closed, (long long)seen.first_us,
           (long long)seen.last_us, (long long)cpu);
    print_histogram(&seen.latency);
    print_stalled();
    printf("}\n");
}

int main(int argc, char **argv) {
    (void)argc;
    want.host = option(argv, "host", "127.0.0.1");
    want.path = option(argv, "path", "/ws");
    want.subprotocol = option(argv, "subprotocol", "");
    want.subscribe = option(argv, "subscribe", "");
    want.answer = option(argv, "answer", "");
    want.ballast = option(argv, "ballast", "");
    want.port = number(argv, "port", 0);
    want.connections = number(argv, "connections", 1);
    want.first = number(argv, "first", 0);
    want.channels = number(argv, "channels", 1);
    want.stream = number(argv, "stream", 0);
    want.stalled = number(argv, "stalled", 0);
    want.window = number(argv, "window", 64);
    want.expect = number(argv, "expect", 0);
    connections = calloc(want.connections, sizeof *connections);
    epoll = epoll_create1(0);
    watch(STDIN_FILENO, NULL);
    open_all();
    int64_t cpu = cpu_us();
    receive_all();
    print_result(cpu_us() - cpu);
}
