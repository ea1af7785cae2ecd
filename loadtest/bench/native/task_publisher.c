// task_publisher: publishes the events of many tasks to a JetStream stream, evenly paced and in batches.
//
//   task_publisher port= [host=127.0.0.1] tasks= subject= header= started= progress= output= completed= [every=5]
//
// The texts are templates: in each, `$C` stands for the number of the task, `$E` for that of the event in its task,
// `$N` for how many events of the same kind were before it, `$S` for the stamp (with `$N`), `$T` for the time in Unix
// ms.
//
// The first line of stdin is the token (empty for none). Every further line, `started|work|completed RATE COUNT`,
// publishes COUNT events at RATE a second over all tasks, which take turns; `work` is progress, and every `every`th
// event of a task is output. At most IN_FLIGHT events are unacknowledged at a time, so a late JetStream makes the
// publisher late instead of losing events. Prints one JSON line when it is connected, and one when all is acknowledged.
#include "nats.h"

enum { EVENT_BYTES = 2048, IN_FLIGHT = 4000 };

static const char ACKS[] = "_INBOX.bench";

struct task {
    long events, progress, output;
};

struct values {
    long task, event, number;
    int64_t now, unix_ms;
};

static struct {
    const char *subject, *header, *started, *progress, *output, *completed;
    long tasks, every;
} want;

static struct task *tasks;
static long published;

static int64_t unix_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

// Put the value of the mark `$mark` at `to`; returns its size.
static size_t put_value(char *to, char mark, const struct values *values) {
    if (mark == 'C') return sprintf(to, "%ld", values->task);
    if (mark == 'E') return sprintf(to, "%ld", values->event);
    if (mark == 'N') return sprintf(to, "%ld", values->number);
    if (mark == 'T') return sprintf(to, "%lld", (long long)values->unix_ms);
    if (mark != 'S') die("unknown mark $%c", mark);
    write_stamp(to, values->number, values->now);
    return STAMP_SIZE;
}

// Fill a template in; returns the size.
static size_t expand(char *to, const char *template, const struct values *values) {
    char *at = to;
    for (const char *mark; (mark = strchr(template, '$')); template = mark + 2) {
        if (at - to + strlen(template) > EVENT_BYTES - 64) die("an event is longer than expected: %s", template);
        memcpy(at, template, mark - template);
        at += mark - template;
        at += put_value(at, mark[1], values);
    }
    return stpcpy(at, template) - to;
}

// The template of a task's next event; takes its number.
static const char *next_event(const char *kind, struct task *task, struct values *values) {
    values->event = task->events++;
    values->number = 0;
    if (begins(kind, "started")) return want.started;
    if (begins(kind, "completed")) return want.completed;
    long work = task->progress + task->output;
    int line = work % want.every == want.every - 1;
    values->number = line ? task->output++ : task->progress++;
    return line ? want.output : want.progress;
}

static size_t add_command(char *to, const char *template, const struct values *values) {
    char subject[EVENT_BYTES], header[EVENT_BYTES], payload[EVENT_BYTES];
    expand(subject, want.subject, values);
    size_t head = expand(header, want.header, values), size = expand(payload, template, values);
    return sprintf(to, "HPUB %s %s %zu %zu\r\n%s%s\r\n", subject, ACKS, head, head + size, header, payload);
}

static void publish_due(const char *kind, const struct pace *pace, long due) {
    static char batch[BATCH_BYTES];
    size_t size = 0;
    struct values values = {.now = now_us(), .unix_ms = unix_ms()};
    for (long k = pace->sent; k < pace->sent + due; k++) {
        values.task = spread(k, want.tasks);
        const char *template = next_event(kind, &tasks[values.task], &values);
        size += add_command(batch + size, template, &values);
        published++;
        if (size + 4 * EVENT_BYTES > sizeof batch || k == pace->sent + due - 1) {
            send_all(batch, size);
            size = 0;
        }
    }
}

static void publish_all(const char *kind, struct pace *pace) {
    for (long due; (due = wait_until_due(pace)); pace->sent += due) {
        take_replies(MSG_DONTWAIT);
        while (published - nats.acknowledged + due > IN_FLIGHT && published > nats.acknowledged) take_replies(0);
        publish_due(kind, pace, due < IN_FLIGHT ? due : (due = IN_FLIGHT));
    }
    while (nats.acknowledged < published) take_replies(0);
}

int main(int argc, char **argv) {
    (void)argc;
    char line[64], subscribe[64];
    want.tasks = number(argv, "tasks", 1);
    want.every = number(argv, "every", 5);
    want.subject = option(argv, "subject", "");
    want.header = option(argv, "header", "");
    want.started = option(argv, "started", "");
    want.progress = option(argv, "progress", "");
    want.output = option(argv, "output", "");
    want.completed = option(argv, "completed", "");
    tasks = calloc(want.tasks, sizeof *tasks);
    open_nats(argv);
    send_all(subscribe, snprintf(subscribe, sizeof subscribe, "SUB %s 1\r\n", ACKS));
    print_connected();
    for (;;) {
        char kind[16];
        struct pace pace = {.sent = 0};
        read_command(line, sizeof line);
        if (sscanf(line, "%15s %lf %ld", kind, &pace.rate, &pace.count) != 3) die("unknown command: %s", line);
        int64_t cpu = cpu_us();
        pace.start = now_us();
        publish_all(kind, &pace);
        printf("{\"published\":%ld,\"seconds\":%.6f,\"cpu_us\":%lld}\n", pace.sent, (now_us() - pace.start) / 1e6,
               (long long)(cpu_us() - cpu));
        fflush(stdout);
    }
}
