// What the viewers of tasks share: how one viewer reads and checks its task, and keeps what makes up the state.
//
// Each message must follow on the one before (`p` on `o`), and the output lines must be numbered without a hole, both
// by the engine and by the producer (the stamp in the line). The record has, for each viewer, a line of counts and then
// all messages, as they came, that are neither output nor progress, each preceded by the newest output and progress
// before it. That is enough to fold them to the viewer's last state.
#include "websocket.h"
#include "histogram.h"
#include "text.h"

#include <sys/epoll.h>

enum { EVENTS = 1024, WRONG_SIZE = 160 };

struct viewer {
    struct stream stream;
    enum { NEW, HANDSHAKE, SUBSCRIBING, JOINED, ENDED, CLOSED } state;
    int slow, gaps, close_code;
    long offset;            // of the newest message
    int after_snapshot;     // the next message may follow on an older one
    long next;              // number of the output line that must come next
    long steps;             // progress events published so far, as the stamp in the newest one says
    long lines, progress;   // how many came
    struct text newest_output, newest_progress, kept;
    char wrong[WRONG_SIZE];  // the first fault
};

static struct {
    struct place place;
    const char *subscribe;  // may contain one %d, for the number of the channel
    const char *record;
    int connections, channels;
} want;

static struct {
    long messages, bytes;
    int64_t first_us, last_us;
    struct histogram latency;
} seen;

static struct viewer *viewers;
static int epoll, joined;
static int ended, closed;  // `ended` has seen the end of its task, or was closed before

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

// Take the stamp in a message: count its latency, unless the viewer is slow. Returns its number, -1 if there is none.
static long take_stamp(const struct viewer *v, const char *payload, size_t size, int64_t now) {
    const char *stamp = find(payload, size, "@@");
    if (!stamp) return -1;
    if (!v->slow) {
        int64_t sent = read_8_digits(stamp + 8) * 100000000 + read_8_digits(stamp + 16);
        count_us(&seen.latency, now > sent ? now - sent : 0);
        seen.last_us = now;
        if (!seen.first_us) seen.first_us = now;
    }
    return (long)read_8_digits(stamp);
}

static void take_output(struct viewer *v, const char *payload, size_t size, int64_t now) {
    long number = take_stamp(v, payload, size, now), first = number_at(payload, size, "\"first\":");
    if (number != v->next || first != v->next)
        wrong(v, "expected output line %ld, but got line %ld with the number %ld", v->next, number, first);
    v->next = first + 1;
    v->lines++;
    replace(&v->newest_output, payload, size);
}

static void take_progress(struct viewer *v, const char *payload, size_t size, int64_t now) {
    v->steps = take_stamp(v, payload, size, now) + 1;
    v->progress++;
    replace(&v->newest_progress, payload, size);
}

static void take_snapshot(struct viewer *v, const char *payload, size_t size) {
    long lines = number_at(payload, size, "\"lines\":");
    v->next = lines < 0 ? 0 : lines;  // absent while there are none
    v->after_snapshot = 1;
    if (v->state != SUBSCRIBING) return;
    v->state = JOINED;
    joined++;
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
        take_progress(v, payload, size, now);
    } else if (begins(event, "task_output\"")) {
        take_output(v, payload, size, now);
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

// Connect a viewer whose socket is open.
static void open_viewer(struct viewer *v) {
    open_stream(&v->stream, &want.place, v - viewers);
    v->state = HANDSHAKE;
    watch(v->stream.fd, v);
}

static void end_viewer(struct viewer *v) {
    unwatch(v);
    if (v->state == ENDED) return;
    wrong(v, "closed by the server with code %d", v->close_code);
    v->state = CLOSED;
    closed++;
    ended++;
}

static void subscribe(struct viewer *v) {
    char message[2048];
    int size = snprintf(message, sizeof message, want.subscribe, (int)(v - viewers) % want.channels);
    send_frame(&v->stream, TEXT, message, size);
    v->state = SUBSCRIBING;
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
    if (v->state == HANDSHAKE && (used = handshake_size(buffer, size))) subscribe(v);
    if (v->state != HANDSHAKE) used += take_frames(v, buffer + used, size - used, now);
    keep_rest(&v->stream, used, size);
}

static void start_viewers(char **argv) {
    want.place.host = option(argv, "host", "127.0.0.1");
    want.place.path = option(argv, "path", "/ws");
    want.place.subprotocol = option(argv, "subprotocol", "");
    want.place.port = number(argv, "port", 0);
    want.subscribe = option(argv, "subscribe", "");
    want.record = option(argv, "record", "");
    want.connections = number(argv, "connections", 1);
    want.channels = number(argv, "channels", 1);
    viewers = calloc(want.connections, sizeof *viewers);
    epoll = epoll_create1(0);
    watch(STDIN_FILENO, NULL);
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

static void print_seen(int64_t cpu) {
    printf("{\"messages\":%ld,\"bytes\":%ld,\"first_us\":%lld,", seen.messages, seen.bytes, (long long)seen.first_us);
    printf("\"last_us\":%lld,\"cpu_us\":%lld,\"latency\":", (long long)seen.last_us, (long long)cpu);
    print_histogram(&seen.latency);
    printf("}\n");
    fflush(stdout);
}
