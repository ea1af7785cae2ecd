// viewers: many WebSockets that watch one task, checked as viewer.h says.
//
//   viewers host= port= path= subprotocol= subscribe=TEXT connections= record=FILE [slow=0] [pace=1000] [segment=1400]
//           [spread_ms=1000]
//
// The first viewer joins at once; then a JSON line is printed. After a line on stdin the others join, evenly over
// `spread_ms`. `slow` of them, spread among the others, have a small receive buffer and small segments, and after they
// have joined they read `pace` bytes a second, until a second line lets them read as fast as they can. When all viewers
// have seen the end of the task, or after a third line, `record` is written, a JSON line is printed, and the program
// ends.
#include "viewer.h"

enum { TICK_MS = 100 };

static struct {
    int viewers, pace, segment, spread_ms;
} slow;

static int opened, commands;

static int is_paced(const struct viewer *v) {
    return v->slow && v->state == JOINED && commands < 2;
}

static void open_next(void) {
    int index = opened++, every = slow.viewers ? want.connections / slow.viewers : 0;
    struct viewer *v = &viewers[index];
    v->slow = every && index % every == every - 1 && index / every < slow.viewers;
    v->stream.fd = new_socket(v->slow, v->slow ? slow.segment : 0);
    open_viewer(v);
}

static void read_fast(struct viewer *v) {
    int was = v->state;
    read_viewer(v, RECV_BYTES);
    if (was == SUBSCRIBING && is_paced(v)) unwatch(v);
}

static void read_paced(void) {
    for (int i = 0; i < opened; i++)
        if (is_paced(&viewers[i])) read_viewer(&viewers[i], slow.pace * TICK_MS / 1000);
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
            read_fast(v);
        else
            take_command();
    }
}

static void join_first(void) {
    open_next();
    while (!joined) turn(-1);
    printf("{\"ready\":1}\n");
    fflush(stdout);
    while (!commands) turn(-1);
}

// Let the others join while all read, until all have seen the end.
static void watch_task(void) {
    int64_t start = now_us(), next_tick = start;
    while (ended < want.connections && commands < 3) {
        int64_t now = now_us();
        long due = want.connections * (now - start) / 1000 / slow.spread_ms + 1;
        for (int most = 64; opened < want.connections && opened < due && most; most--) open_next();
        if (now >= next_tick) {
            read_paced();
            next_tick += TICK_MS * 1000;
        }
        turn(opened < want.connections ? 1 : TICK_MS);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    slow.viewers = number(argv, "slow", 0);
    slow.pace = number(argv, "pace", 1000);
    slow.segment = number(argv, "segment", 1400);
    slow.spread_ms = number(argv, "spread_ms", 1000);
    start_viewers(argv);
    join_first();
    int64_t cpu = cpu_us();
    watch_task();
    cpu = cpu_us() - cpu;
    write_record();
    print_seen(cpu);
}
