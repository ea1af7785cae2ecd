// What the receivers of the bench share: how to open a WebSocket, and its frames.
#include "common.h"

enum { RECV_BYTES = 256 * 1024, STASH_BYTES = 1024 * 1024 };
enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==", ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";  // RFC 6455, 1.3

struct stream {
    int fd;
    uint32_t stash_size;
    char *stash;  // the incomplete frame at the end of the last read
};

struct frame {
    int opcode;
    const char *payload;
    size_t size;
};

struct place {
    const char *host, *path, *subprotocol, *token;  // a token may be NULL
    int port;
};

static char buffer[STASH_BYTES + RECV_BYTES];

static void send_frame(struct stream *s, int opcode, const char *payload, size_t size) {
    char frame[4096];
    size_t head = size < 126 ? 6 : 8;
    if (size + head > sizeof frame) die("a message of %zu bytes is too long to send", size);
    frame[0] = (char)(0x80 | opcode);
    frame[1] = (char)(0x80 | (size < 126 ? size : 126));
    if (size >= 126) frame[2] = (char)(size >> 8), frame[3] = (char)size;
    memset(frame + head - 4, 0, 4);  // a mask of zeros
    memcpy(frame + head, payload, size);
    send(s->fd, frame, head + size, MSG_NOSIGNAL);
}

// A socket, if `small` with a small receive buffer, and with segments of `segment` bytes (0: the default), so that the
// sender's buffer grows slowly, too.
static int new_socket(int small, int segment) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1, size = 4096;
    if (fd < 0) die("cannot open a socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (small) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (segment) setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    return fd;
}

// Connect and ask for the upgrade. `number` is unique among the connections of all receivers.
static void open_stream(struct stream *s, const struct place *to, int number) {
    struct sockaddr_in from = address_of("127.0.0.1", 0), server = address_of(to->host, to->port);
    from.sin_addr.s_addr = htonl(0x7f000001 + number % 64);  // each has its own range of ports
    if (bind(s->fd, (void *)&from, sizeof from) || connect(s->fd, (void *)&server, sizeof server))
        die("connection %d cannot be opened: %s", number, strerror(errno));
    char request[2048];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s%s%s%s%s%s\r\n",
                        to->path, to->host, to->port, KEY, *to->subprotocol ? "Sec-WebSocket-Protocol: " : "",
                        to->subprotocol, *to->subprotocol ? "\r\n" : "", to->token ? "Authorization: Bearer " : "",
                        to->token ? to->token : "", to->token ? "\r\n" : "");
    if (size >= (int)sizeof request) die("the request of connection %d is too long", number);
    send(s->fd, request, size, MSG_NOSIGNAL);
}

// The size of the answer to the handshake at the start of `data`; 0 while it is incomplete.
static size_t handshake_size(const char *data, size_t size) {
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = end + 4 - data;
    if (!memmem(data, head, " 101 ", 5) || !memmem(data, head, ACCEPT, strlen(ACCEPT)))
        die("the handshake was refused: %.*s", (int)size, data);
    return head;
}

// Read once, at most `most` bytes, into `buffer`, after what was left. Returns how many came, 0 at the end of the
// stream, -1 if there are none yet.
static ssize_t read_stream(struct stream *s, size_t most) {
    memcpy(buffer, s->stash, s->stash_size);
    ssize_t got = recv(s->fd, buffer + s->stash_size, most, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR ? -1 : 0;
    return got;
}

// Keep the bytes of `buffer` from `used` to `size`.
static void keep_rest(struct stream *s, size_t used, size_t size) {
    s->stash_size = size - used;
    if (s->stash_size && !(s->stash = realloc(s->stash, s->stash_size))) die("out of memory");
    memcpy(s->stash, buffer + used, s->stash_size);
}

// Take the first frame of `data`. Returns its size with the head, 0 while it is incomplete.
static size_t next_frame(const char *data, size_t size, struct frame *frame) {
    const unsigned char *bytes = (const unsigned char *)data;
    if (size < 2) return 0;
    size_t head = 2, length = bytes[1];
    if (length == 126) head = 4;
    if (length == 127) head = 10;
    if (size < head) return 0;
    if (head > 2) length = 0;
    for (size_t i = 2; i < head; i++) length = length << 8 | bytes[i];
    if (length + head > STASH_BYTES) die("a frame of %zu bytes is longer than expected", length);
    if (size < head + length) return 0;
    if (!(bytes[0] & 0x80) || bytes[0] & 0x70) die("unexpected frame: first byte %#x", bytes[0]);
    *frame = (struct frame){bytes[0] & 15, data + head, length};
    return head + length;
}

static int close_code_of(const struct frame *frame) {
    return frame->size >= 2 ? (unsigned char)frame->payload[0] << 8 | (unsigned char)frame->payload[1] : 1005;
}
