// receiver: opens many WebSockets, subscribes each, then reads and checks every message of every connection.
//
//   receiver host= port= path= connections= [first=0] [channels=1] [subprotocol=] [subscribe=TEXT] [answer=TEXT]
//            [stream=0] [expect=0] [stalled=0] [ballast=TEXT] [window=64] [tokens=FILE]
//
// `subscribe` may contain one %d, for the channel's number: connections, counted from `first`, take the channels in
// turn. A connection is ready once a message that contains `answer` has come. When all are ready, one JSON line is
// printed. Then messages are read until every connection that reads has had `expect` of them, or a line comes on stdin.
// Of `tokens` each connection shows one line, also counted from `first`. The first `stalled` connections send `ballast` as well, and are not read until then. `stream=1`: a frame is a piece
// of a byte stream with any number of messages (NATS over WebSocket). Ends with a JSON line.
#include "websocket.h"
#include "histogram.h"

#include <sys/epoll.h>

enum { EVENTS = 1024, STALLED_MS = 10000, QUIET_MS = 1000, MAX_TOKEN = 1536 };

struct connection {
    struct stream stream;
    enum { HANDSHAKE, SUBSCRIBING, READY, ENDED } state;
    uint32_t next;   // the number of the message that must come next
    uint32_t holes;  // numbers that were skipped and have not come since
    int close_code;
};

static struct {
    struct place place;
    const char *subscribe, *answer, *ballast;
    int connections, first, channels, stream, stalled, window;
    long expect;
} want;

static struct {
    long messages, bytes, in_order, reordered, duplicated, closed;
    int64_t first_us, last_us;
    struct histogram latency;
} seen;

static struct connection *connections;
static int epoll, ready, in_flight;
static FILE *tokens;

static void watch(int fd, struct connection *c) {
    struct epoll_event event = {EPOLLIN, {.ptr = c}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("cannot watch descriptor %d: %s", fd, strerror(errno));
}

// Open the file of tokens at the line of the first connection.
static FILE *open_tokens(const char *path) {
    char line[MAX_TOKEN];
    FILE *file = *path ? fopen(path, "r") : NULL;
    if (*path && !file) die("cannot read %s: %s", path, strerror(errno));
    for (int skipped = 0; file && skipped < want.first; skipped++)
        if (!fgets(line, sizeof line, file)) die("%s has too few lines", path);
    return file;
}

static void open_connection(int index) {
    static char token[MAX_TOKEN];
    struct connection *c = &connections[index];
    if (tokens) {
        if (!fgets(token, sizeof token, tokens)) die("there is no token for connection %d", want.first + index);
        token[strcspn(token, "\n")] = 0;
        want.place.token = token;
    }
    c->stream.fd = new_socket(index < want.stalled, 0);
    open_stream(&c->stream, &want.place, want.first + index);
    watch(c->stream.fd, c);
    in_flight++;
}

static void subscribe(struct connection *c) {
    char message[2048];
    int size = snprintf(message, sizeof message, want.subscribe, (want.first + (int)(c - connections)) % want.channels);
    send_frame(&c->stream, TEXT, message, size);
    if (c - connections < want.stalled) send_frame(&c->stream, TEXT, want.ballast, strlen(want.ballast));
    c->state = SUBSCRIBING;
}

static size_t take_handshake(struct connection *c, const char *data, size_t size) {
    size_t head = handshake_size(data, size);
    if (head) subscribe(c);
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

// The stamp is mostly in the same place as in the message before.
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
        if (stamp && stamp + STAMP_SIZE > end) return;  // cut in two: the count will show it
    }
}

// Take the complete frames of `data`. Returns how many bytes they have.
static size_t take_frames(struct connection *c, const char *data, size_t size, int64_t now) {
    struct frame frame;
    size_t at = 0;
    for (size_t taken; (taken = next_frame(data + at, size - at, &frame)); at += taken) {
        if (frame.opcode == TEXT || frame.opcode == BINARY) take_data(c, frame.payload, frame.size, now);
        if (frame.opcode == PING) send_frame(&c->stream, PONG, frame.payload, frame.size);
        if (frame.opcode == CLOSE) c->close_code = close_code_of(&frame);
    }
    return at;
}

static void end_connection(struct connection *c) {
    if (c->state != READY) die("connection %d was closed before it was subscribed", (int)(c - connections));
    c->state = ENDED;
    seen.closed++;
    epoll_ctl(epoll, EPOLL_CTL_DEL, c->stream.fd, NULL);
}

// Read once.
static void read_connection(struct connection *c) {
    ssize_t got = read_stream(&c->stream, RECV_BYTES);
    if (got < 0) return;
    if (!got) {
        end_connection(c);
        return;
    }
    int64_t now = now_us();
    seen.bytes += got;
    size_t size = c->stream.stash_size + got;
    size_t used = c->state == HANDSHAKE ? take_handshake(c, buffer, size) : 0;
    if (c->state != HANDSHAKE) used += take_frames(c, buffer + used, size - used, now);
    keep_rest(&c->stream, used, size);
}

// One turn of the loop. Returns false if there is something on stdin, or if nothing came within `timeout_ms` (-1: wait
// for ever).
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
    for (int i = 0; i < want.stalled; i++) epoll_ctl(epoll, EPOLL_CTL_DEL, connections[i].stream.fd, NULL);
}

static void receive_all(void) {
    long total = want.expect * (want.connections - want.stalled);
    while (turn(-1))
        if (total && seen.in_order + seen.reordered >= total) return;
}

// Read the stalled connections to their end, and print how they ended.
static void print_stalled(void) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    for (int i = 0; i < want.stalled; i++) watch(connections[i].stream.fd, &connections[i]);
    int64_t until = now_us() + STALLED_MS * 1000;
    while (want.stalled && now_us() < until && turn(QUIET_MS)) continue;
    int open = 0, cut = 0, closed = 0;
    for (int i = 0; i < want.stalled; i++) {
        struct connection *c = &connections[i];
        if (c->close_code) closed++;
        else if (c->state == ENDED) cut++;
        else open++;
    }
    printf(",\"stalled\":{\"open\":%d,\"cut\":%d,\"closed\":%d}", open, cut, closed);
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
    want.place.host = option(argv, "host", "127.0.0.1");
    want.place.path = option(argv, "path", "/ws");
    want.place.subprotocol = option(argv, "subprotocol", "");
    want.subscribe = option(argv, "subscribe", "");
    want.answer = option(argv, "answer", "");
    want.ballast = option(argv, "ballast", "");
    want.place.port = number(argv, "port", 0);
    want.connections = number(argv, "connections", 1);
    want.first = number(argv, "first", 0);
    want.channels = number(argv, "channels", 1);
    want.stream = number(argv, "stream", 0);
    want.stalled = number(argv, "stalled", 0);
    want.window = number(argv, "window", 64);
    want.expect = number(argv, "expect", 0);
    tokens = open_tokens(option(argv, "tokens", ""));
    connections = calloc(want.connections, sizeof *connections);
    epoll = epoll_create1(0);
    watch(STDIN_FILENO, NULL);
    open_all();
    int64_t cpu = cpu_us();
    receive_all();
    print_result(cpu_us() - cpu);
}
