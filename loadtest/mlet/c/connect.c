/* A mlet in C without any library: connect IPV4 PORT [SECONDS]. It lets the endpoint connect there, fetches what the server
 * sends, and prints the endpoint's address, how many nanoseconds the first byte took by the endpoint's clock, and the first
 * line. After so many seconds in all (60) it fails: an endpoint or a server may say nothing for ever.
 *
 * It knows what docs/spec/protocol.md says of mlets (2) and messages (1), which is the contract of the original: the session
 * is on descriptor 0, EPADDR in the environment, nothing else. So it runs under pktxpmgr as it does under the original, which
 * never calls it with --check-args, as pktxpmgr --check-mlet does to ask whether the words behind it are right. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NCLOSE = 0x2b, NOPEN = 0x2a, RESULT = 0x40, NSTAT = 0x61, NDATA = 0x62 };
enum { IPV4 = 4, TCP = 6, SKTID = 7 };

static void fail(const char *why) {
    fprintf(stderr, "connect: endpoint %s: %s\n", getenv("EPADDR") ? getenv("EPADDR") : "?", why);
    exit(1);
}

/* The time is over. What is called in a signal's handler must be safe there, which fprintf is not. */
static void late(int signal) {
    static const char why[] = "connect: it took too long\n";
    (void)signal;
    (void)!write(2, why, sizeof why - 1);
    _exit(1);
}

static void ask(uint8_t type, const uint8_t *payload, size_t len) {
    uint8_t message[64] = {type, 0, 0, (uint8_t)len};
    memcpy(message + 4, payload, len);
    if (write(0, message, 4 + len) != (ssize_t)(4 + len))
        fail("the session is over");
}

static void take(uint8_t *bytes, size_t len) {
    for (ssize_t came; len > 0; bytes += came, len -= (size_t)came)
        if ((came = read(0, bytes, len)) <= 0)
            fail("the endpoint left");
}

/* The next message; its type and, in *len, the length of its payload. */
static uint8_t next(uint8_t *payload, size_t room, size_t *len) {
    uint8_t head[4];
    take(head, 4);
    *len = (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
    if (*len > room)
        fail("a message is too long");
    take(payload, *len);
    return head[0];
}

/* The time of a notification: eight bytes behind sktid, family and protocol. */
static uint64_t time_of(const uint8_t *payload) {
    uint64_t time = 0;
    for (int i = 3; i < 11; i++)
        time = time << 8 | payload[i];
    return time;
}

int main(int argc, char **argv) {
    static uint8_t payload[0x20000];
    uint8_t open[19] = {SKTID, IPV4, TCP, 0, 1};
    uint64_t stood = 0;
    size_t len;
    int is_check = argc > 1 && strcmp(argv[1], "--check-args") == 0;

    argv += is_check, argc -= is_check;
    int port = argc > 2 ? atoi(argv[2]) : 0, seconds = argc > 3 ? atoi(argv[3]) : 60;

    if (argc > 4 || port < 1 || port > 65535 || seconds < 1 || inet_pton(AF_INET, argv[1], open + 13) != 1)
        return fprintf(stderr, "usage: connect IPV4 PORT [SECONDS]\n"), 2;
    if (is_check)
        return puts("arguments ok"), 0;
    open[17] = (uint8_t)(port >> 8);
    open[18] = (uint8_t)port;
    signal(SIGALRM, late);
    alarm((unsigned)seconds);
    ask(NOPEN, open, sizeof open);
    for (;;) {
        uint8_t type = next(payload, sizeof payload, &len);
        if (type == RESULT && len >= 2 && (payload[0] | payload[1]) != 0)
            fail("it may not connect");
        else if (type == NSTAT && len == 12)
            fail("there is no connection");
        else if (type == NSTAT)
            stood = time_of(payload);
        else if (type == NDATA && len > 11)
            break;
    }
    printf("%s %llu %.*s", getenv("EPADDR"), (unsigned long long)(time_of(payload) - stood),
           (int)(len - 11), payload + 11);
    ask(NCLOSE, open, 1);
    return 0;
}
