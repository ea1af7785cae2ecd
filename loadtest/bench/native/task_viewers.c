// task_viewers: many WebSockets that watch many tasks, checked as viewer.h says.
//
//   task_viewers host= port= path= subprotocol= subscribe=TEXT connections= channels= record=FILE [window=64]
//
// The viewers take the tasks in turn. At most `window` of them join at a time; once all have their snapshot, a JSON
// line is printed. Then lines on stdin are commands: `expect N` reads until every viewer has seen N events of its task,
// going by the stamps in output and progress; `end` reads until every viewer has seen the end of its task. Either stops
// early at the next line (`stop`), and prints a JSON line with what has come since the command. After `end`, `record`
// is written, and the program ends.
#include "viewer.h"

// One turn of the loop. Returns false if there is something on stdin.
static int turn(void) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, -1), go_on = 1;
    for (int i = 0; i < count; i++) {
        struct viewer *v = events[i].data.ptr;
        if (v)
            read_viewer(v, RECV_BYTES);
        else
            go_on = 0;
    }
    return go_on;
}

static void join_all(int window) {
    int64_t start = now_us();
    for (int opened = 0; joined < want.connections;) {
        for (; opened < want.connections && opened - joined < window; opened++) {
            viewers[opened].stream.fd = new_socket(0, 0);
            open_viewer(&viewers[opened]);
        }
        if (!turn()) exit(1);
        if (closed) die("a viewer was closed before it had its snapshot");
    }
    printf("{\"ready\":%d,\"seconds\":%.6f}\n", joined, (now_us() - start) / 1e6);
    fflush(stdout);
}

// Whether every viewer has seen `expect` events. Viewers before `*first` have; what they have seen only grows.
static int have_seen(long expect, int *first) {
    while (*first < want.connections && viewers[*first].next + viewers[*first].steps >= expect) ++*first;
    return *first == want.connections;
}

int main(int argc, char **argv) {
    (void)argc;
    char line[64];
    int end = 0;
    setvbuf(stdin, NULL, _IONBF, 0);  // so that epoll knows of every line that was not read yet
    start_viewers(argv);
    join_all(number(argv, "window", 64));
    while (!end) {
        int first = 0;
        read_command(line, sizeof line);
        if (begins(line, "stop")) continue;  // it came after the end of what it was to stop
        end = begins(line, "end");
        long expect = begins(line, "expect ") ? atol(line + 7) : 0;
        memset(&seen, 0, sizeof seen);
        int64_t cpu = cpu_us();
        while (end ? ended < want.connections : !have_seen(expect, &first))
            if (!turn()) break;
        cpu = cpu_us() - cpu;
        if (end) write_record();
        print_seen(cpu);
    }
}
