// What the C programs of the bench share: options, clock, the stamp in every message, and even pacing.
//
// A stamp is "@@", the message's number in its channel (8 digits) and its CLOCK_MONOTONIC send time in microseconds
// (16 digits). It is text, so that it passes through JSON, and of fixed width, so that it is read in a few nanoseconds.
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STAMP_SIZE = 26, TICK_US = 1000 };

__attribute__((noreturn, format(printf, 1, 2), unused)) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

// The value of "name=value" in argv, else `fallback`.
__attribute__((unused)) static const char *option(char **argv, const char *name, const char *fallback) {
    size_t size = strlen(name);
    for (; *argv; argv++)
        if (!strncmp(*argv, name, size) && (*argv)[size] == '=') return *argv + size + 1;
    return fallback;
}

__attribute__((unused)) static long number(char **argv, const char *name, long fallback) {
    const char *text = option(argv, name, "");
    return *text ? atol(text) : fallback;
}

__attribute__((unused)) static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

__attribute__((unused)) static int64_t cpu_us(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return used.tv_sec * 1000000LL + used.tv_nsec / 1000;
}

__attribute__((unused)) static struct sockaddr_in address_of(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die("not an IPv4 address: %s", host);
    return address;
}

// The next line of stdin, without its end. At the end of stdin our parent is gone, so exit.
__attribute__((unused)) static void read_command(char *line, int size) {
    if (!fgets(line, size, stdin)) exit(1);
    line[strcspn(line, "\n")] = 0;
}

__attribute__((unused)) static int begins(const char *text, const char *with) {
    return !strncmp(text, with, strlen(with));
}

__attribute__((unused)) static void write_digits(char *to, uint64_t value, int width) {
    while (width--) {
        to[width] = '0' + value % 10;
        value /= 10;
    }
}

__attribute__((unused)) static void write_stamp(char *to, uint64_t sequence, int64_t sent_us) {
    to[0] = to[1] = '@';
    write_digits(to + 2, sequence, 8);
    write_digits(to + 10, sent_us, 16);
}

// Eight ASCII digits at once: pairs, then fours, then all (little endian).
__attribute__((unused)) static uint64_t read_8_digits(const char *from) {
    uint64_t v;
    memcpy(&v, from, 8);
    v -= 0x3030303030303030;
    v = v * 10 + (v >> 8);
    return ((v & 0x000000FF000000FF) * 0x000F424000000064 + ((v >> 16 & 0x000000FF000000FF) * 0x0000271000000001)) >> 32;
}

struct pace {
    int64_t start;
    double rate;  // messages a second
    long sent;
    long count;
};

// Sleep until the next message is due, waking at most once in TICK_US. Returns how many are due by then, 0 at the end.
__attribute__((unused)) static long wait_until_due(struct pace *pace) {
    if (pace->sent >= pace->count) return 0;
    int64_t offset = (int64_t)(pace->sent * 1e6 / pace->rate);
    if (pace->rate > 1e6 / TICK_US) offset = (offset + TICK_US - 1) / TICK_US * TICK_US;
    int64_t due_at = pace->start + offset;
    struct timespec until = {.tv_sec = due_at / 1000000, .tv_nsec = due_at % 1000000 * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
    long due = (long)((now_us() - pace->start) * pace->rate / 1e6) + 1 - pace->sent;
    if (due < 1) due = 1;
    return due < pace->count - pace->sent ? due : pace->count - pace->sent;
}

// Which of `n` channels or connections message `k` goes to: each in turn, with neighbours far apart.
__attribute__((unused)) static long spread(long k, long n) {
    return k % n * (n % 7919 ? 7919 : 7907) % n;
}

// A frame or command with a message's data: `size` bytes, among them the stamp.
struct message {
    char bytes[8192];
    size_t size;
    char *stamp;
};

// Append the prefix, `data` bytes that begin with the stamp, and the suffix.
__attribute__((unused)) static void add_payload(struct message *m, const char *prefix, long data, const char *suffix) {
    size_t before = strlen(prefix), after = strlen(suffix);
    if (data < STAMP_SIZE || m->size + before + data + after > sizeof m->bytes) die("cannot send %ld bytes of data", data);
    memcpy(m->bytes + m->size, prefix, before);
    m->stamp = m->bytes + m->size + before;
    memset(m->stamp, 'x', data);
    memcpy(m->stamp + data, suffix, after);
    m->size += before + data + after;
}

__attribute__((unused)) static void print_published(const struct pace *pace) {
    printf("{\"published\":%ld,\"seconds\":%.6f,\"cpu_us\":%lld}\n", pace->sent, (now_us() - pace->start) / 1e6,
           (long long)cpu_us());
    fflush(stdout);
}
