/* Shifts the wall clock of a process that is started with this library preloaded: by as many
 * nanoseconds as the first eight bytes of the file CHAOS_CLOCK_FILE say, at every moment. The
 * monotonic clock stays as it is, as it does when an administrator or NTP sets the time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift_ns;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void prepare(void) {
    real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CHAOS_CLOCK_FILE");
    if (path == NULL) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) shift_ns = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (real_gettime == NULL) prepare();
    int result = real_gettime(clock, now);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (result != 0 || !is_wall || shift_ns == NULL) return result;
    int64_t ns = (int64_t)now->tv_nsec + *shift_ns % 1000000000;
    now->tv_sec += *shift_ns / 1000000000;
    if (ns < 0) {
        ns += 1000000000;
        now->tv_sec -= 1;
    } else if (ns >= 1000000000) {
        ns -= 1000000000;
        now->tv_sec += 1;
    }
    now->tv_nsec = ns;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (now == NULL) return 0;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    if (result == 0) {
        now->tv_sec = precise.tv_sec;
        now->tv_usec = precise.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *out) {
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise) != 0) return (time_t)-1;
    if (out != NULL) *out = precise.tv_sec;
    return precise.tv_sec;
}
