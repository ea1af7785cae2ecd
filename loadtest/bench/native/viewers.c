// viewers: many WebSockets that watch one task. Every message is checked, and those that make up the state are kept.
//
//   viewers host= port= path= subprotocol= subscribe=TEXT connections= record=FILE [slow=0] [pace=1000] [segment=1400]
//           [spread_ms=1000]
//
// The first viewer joins at once; then a JSON line is printed. After a line on stdin the others join, evenly over
// `spread_ms`. `slow` of them, spread among the others, have a small receive buffer and small segments, and after they
// have joined they read `pace` bytes a second, until a second line lets them read as fast as they can. When all viewers
// have seen the end of the task, or after a third line, a JSON line is printed and the program ends.
//
// Each message is checked: it must follow on the one before (`p` on `o`), and the output lines must be numbered without
// a hole, both by the engine and by the producer (the stamp in the line). `record` gets, for each viewer, a line of
// counts and then all messages, as they came, that are neither output nor progress, each preceded by the newest output
// and progress before it. That is enough to fold them to the viewer's last state.
#include "websocket.h"
#include "histogram.h"
#include "text.h"

#include <sys/epoll.h>

enum { EVENTS = 1024, TICK_MS = 100, WRONG_SIZE = 160 };

struct viewer {
    struct stream stream;
    enum { NEW, HANDSHAKE, SUBSCRIBING, JOINED, ENDED, CLOSED } state;
    int slow, gaps, close_code;
    long offset;            // of the newest message
    int after_snapshot;     // the next message may follow on an older one
    long next;              // number of the output line that must come next
    long lines, progress;   // how many came
    struct text newest_output, newest_progress, kept;
    char wrong[WRONG_SIZE];  // the first fault
};

static struct {
    struct place place;
    const char *subscribe, *record;
    int connections, slow, pace, segment, spread_ms;
} want;

static struct {
    long messages, bytes;
    int64_t first_us, last_us;
    struct histogram latency;
} seen;

static struct viewer *viewers;
static int epoll, opened, ended, joined_first, commands;

static void keep(struct viewer *v, const char *payload, size_t size) {
    append(&v->kept, v->newest_progress.data, v->newest_progress.size);
    append(&v->kept, v->newest_output.data, v->newest_output.size);
    v->newest_progress.size = v->newest_output.size = 0;
    append(&v->kept, payload, size);
    append(&v->kept, "\n", 1);
}

__attribute__((format(printf, 2, 3))) static void wrong(struct viewer *v, const char *format, ...) {
    if (*v->wrong) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(v->wrong, sizeof v->wrong, format, arguments);
    va_end(arguments);
}

static void check_line(struct viewer *v, const char *payload, size_t size, int64_t now) {
    const char *stamp = find(payload, size, "@@");
    long number = stamp ? (long)read_8_digits(stamp) : -1, first = number_at(payload, size, "\"first\":");
    if (number != v->next || first != v->next)
        wrong(v, "expected output line %ld, but got line %ld with the number %ld", v->next, number, first);
    v->next = first + 1;
    v->lines++;
    if (v->slow || !stamp) return;
    int64_t sent = read_8_digits(stamp + 8) * 100000000 + read_8_digits(stamp + 16);
    count_us(&seen.latency, now > sent ? now - sent : 0);
    seen.last_us = now;
    if (!seen.first_us) seen.first_us = now;
}

static void take_snapshot(struct viewer *v, const char *payload, size_t size) {
    long lines = number_at(payload, size, "\"lines\":");
    v->next = lines < 0 ? 0 : lines;  // absent while there are none
    v->after_snapshot = 1;
    if (v->state == SUBSCRIBING) v->state = JOINED;
    if (v == viewers) joined_first = 1;
}

static void check_order(struct viewer *v, const char *payload, size_t size, int snapshot) {
    long offset = number_at(payload, size, "\"o\":"), previous = snapshot ? -1 : number_at(payload, size, "\"p\":");
    if (!snapshot && (v->after_snapshot ? previous > v->offset : previous != v->offset))
        wrong(v, "message %ld follows on %ld, but the one before was %ld", offset, previous, v->offset);
    v->offset = offset;
    v->after_snapshot = 0;
}

static void take_message(struct viewer *v, const char *payload, size_t size, int64_t now) {
    size_t head = size < 512 ? size : 512;
    const char *event = find(payload, head, "\"e\":\"");
    if (find(payload, head, "\"t\":\"err\"")) die("a viewer was refused: %.*s", (int)size, payload);
    if (find(payload, head, "\"t\":\"gap\"")) {
        v->gaps++;
        keep(v, payload, size);
    }
    if (!event) return;
    seen.messages++;
    int snapshot = begins(event, "task_snapshot\"");
    check_order(v, payload, head, snapshot);
    if (begins(event, "task_progress\"")) {
        v->progress++;
        replace(&v->newest_progress, payload, size);
    } else if (begins(event, "task_output\"")) {
        check_line(v, payload, size, now);
        replace(&v->newest_output, payload, size);
    } else {
        if (snapshot) take_snapshot(v, payload, size);
        keep(v, payload, size);
    }
    if (begins(event, "task_completed\"")) {
        v->state = ENDED;
        ended++;
    }
}

static size_t take_frames(struct viewer *v, const char *data, size_t size, int64_t now) {
    struct frame frame;
    size_t at = 0;
    for (size_t taken; (taken = next_frame(data + at, size - at, &frame)); at += taken) {
        if (frame.opcode == TEXT) take_message(v, frame.payload, frame.size, now);
        if (frame.opcode == PING) send_frame(&v->stream, PONG, frame.payload, frame.size);
        if (frame.opcode == CLOSE) v->close_code = close_code_of(&frame);
    }
    return at;
}

static void watch(int fd, struct viewer *v) {
    struct epoll_event event = {EPOLLIN, {.ptr = v}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("cannot watch descriptor %d: %s", fd, strerror(errno));
}

static void unwatch(struct viewer *v) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, v->stream.fd, NULL);
}

static void end_viewer(struct viewer *v) {
    unwatch(v);
    if (v->state == ENDED) return;
    wrong(v, "closed by the server with code %d", v->close_code);
    v->state = CLOSED;
    ended++;
}

// Read once, at most `most` bytes.
static void read_viewer(struct viewer *v, size_t most) {
    ssize_t got = read_stream(&v->stream, most);
    if (got < 0) return;
    if (!got) {
        end_viewer(v);
        return;
    }
    int64_t now = now_us();
    seen.bytes += got;
    size_t size = v->stream.stash_size + got, used = 0;
    if (v->state == HANDSHAKE && (used = handshake_size(buffer, size))) {
        send_frame(&v->stream, TEXT, want.subscribe, strlen(want.subscribe));
        v->state = SUBSCRIBING;
    }
    int was = v->state;
    if (was != HANDSHAKE) used += take_frames(v, buffer + used, size - used, now);
    keep_rest(&v->stream, used, size);
    if (v->slow && was == SUBSCRIBING && v->state == JOINED && commands < 2) unwatch(v);
}

static void open_viewer(int index) {
    struct viewer *v = &viewers[index];
    int every = want.slow ? want.connections / want.slow : 0;
    v->slow = every && index % every == every - 1 && index / every < want.slow;
    v->stream.fd = new_socket(v->slow, v->slow ? want.segment : 0);
    open_stream(&v->stream, &want.place, index);
    v->state = HANDSHAKE;
    watch(v->stream.fd, v);
}

static int is_paced(const struct viewer *v) {
    return v->slow && v->state == JOINED && commands < 2;
}

static void read_paced(void) {
    for (int i = 0; i < opened; i++)
        if (is_paced(&viewers[i])) read_viewer(&viewers[i], want.pace * TICK_MS / 1000);
}

static void take_command(void) {
    char text[64];
    ssize_t got = read(STDIN_FILENO, text, sizeof text);
    if (got <= 0) exit(1);  // our parent is gone
    int before = commands;
    for (ssize_t i = 0; i < got; i++) commands += text[i] == '\n';
    if (before < 2 && commands >= 2)
        for (int i = 0; i < opened; i++)
            if (viewers[i].slow && viewers[i].state == JOINED) watch(viewers[i].stream.fd, &viewers[i]);
}

static void turn(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        struct viewer *v = events[i].data.ptr;
        if (v)
            read_viewer(v, RECV_BYTES);
        else
            take_command();
    }
}

static void join_first(void) {
    open_viewer(opened++);
    while (!joined_first) turn(-1);
    printf("{\"ready\":1}\n");
    fflush(stdout);
    while (!commands) turn(-1);
}

// Let the others join while all read, until all have seen the end.
static void watch_task(void) {
    int64_t start = now_us(), next_tick = start;
    while (ended < want.connections && commands < 3) {
        int64_t now = now_us();
        long due = want.connections * (now - start) / 1000 / want.spread_ms + 1;
        for (int most = 64; opened < want.connections && opened < due && most; most--) open_viewer(opened++);
        if (now >= next_tick) {
            read_paced();
            next_tick += TICK_MS * 1000;
        }
        turn(opened < want.connections ? 1 : TICK_MS);
    }
}

static void write_record(void) {
    FILE *file = fopen(want.record, "w");
    if (!file) die("cannot write %s: %s", want.record, strerror(errno));
    for (int i = 0; i < want.connections; i++) {
        struct viewer *v = &viewers[i];
        fprintf(file, "{\"viewer\":%d,\"slow\":%s,\"lines\":%ld,\"progress\":%ld,\"next\":%ld,\"gaps\":%d,", i,
                v->slow ? "true" : "false", v->lines, v->progress, v->next, v->gaps);
        fprintf(file, "\"wrong\":\"%s\"}\n", v->wrong);
        keep(v, "", 0);
        fwrite(v->kept.data, 1, v->kept.size, file);
    }
    if (fclose(file)) die("cannot write %s: %s", want.record, strerror(errno));
}

int main(int argc, char **argv) {
    (void)argc;
    want.place.host = option(argv, "host", "127.0.0.1");
    want.place.path = option(argv, "path", "/ws");
    want.place.subprotocol = option(argv, "subprotocol", "");
    want.place.port = number(argv, "port", 0);
    want.subscribe = option(argv, "subscribe", "");
    want.record = option(argv, "record", "");
    want.connections = number(argv, "connections", 1);
    want.slow = number(argv, "slow", 0);
    want.pace = number(argv, "pace", 1000);
    want.segment = number(argv, "segment", 1400);
    want.spread_ms = number(argv, "spread_ms", 1000);
    viewers = calloc(want.connections, sizeof *viewers);
    epoll = epoll_create1(0);
    watch(STDIN_FILENO, NULL);
    join_first();
    int64_t cpu = cpu_us();
    watch_task();
    cpu = cpu_us() - cpu;
    write_record();
    printf("{\"messages\":%ld,\"bytes\":%ld,\"first_us\":%lld,\"last_us\":%lld,\"cpu_us\":%lld,", seen.messages, seen.bytes,
           (long long)seen.first_us, (long long)seen.last_us, (long long)cpu);
    printf("\"latency\":");
    print_histogram(&seen.latency);
    printf("}\n");
}
