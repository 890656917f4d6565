/* Makes the n-th system call that changes a file fail, or ends the process there: loaded before the C library.

   fault_arm(kinds, moment, code): count calls of the kinds (a set of bits); the one with number `moment` (from 1) fails
   with `code` as errno, or with code 0 the process ends by SIGKILL, halfway through a write. fault_count() tells how many
   calls there were since. Only files below the folders of fault_root() count, so that logs and the interpreter's own
   descriptors stay out of it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, RENAME = 4, LINK = 8, MAKE = 16, OPEN = 32, REMOVE = 64 };

static char root[PATH_MAX];
static int kinds, code;
static long moment, count;

void fault_root(const char *path) { snprintf(root, sizeof root, "%s", path); }
void fault_arm(int which, long at, int with) { kinds = which; moment = at; code = with; count = 0; }
long fault_count(void) { return count; }

static int below(const char *path) {
    char real[PATH_MAX];
    if (!kinds || !root[0]) return 0;
    if (path[0] != '/') {
        if (!getcwd(real, sizeof real)) return 0;
        return !strncmp(real, root, strlen(root));
    }
    return !strncmp(path, root, strlen(root));
}

static int descriptor_below(int descriptor) {
    char link[64], real[PATH_MAX];
    if (!kinds || !root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, real, sizeof real - 1);
    if (length < 0) return 0;
    real[length] = 0;
    return !strncmp(real, root, strlen(root));
}

/* Whether this call is the one. Threads share the counter, as they share the disk. */
static int strikes(int kind) {
    if (!(kinds & kind)) return 0;
    return __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) == moment;
}

static int fail(void) {
    if (!code) kill(getpid(), SIGKILL);
    errno = code;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int descriptor, const void *data, size_t size) {
    if (descriptor_below(descriptor) && strikes(WRITE)) {
        if (size > 1) REAL(write)(descriptor, data, size / 2); /* a full disk takes a part */
        return fail();
    }
    return REAL(write)(descriptor, data, size);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) {
    if (descriptor_below(descriptor) && strikes(WRITE)) return fail();
    return REAL(pwrite)(descriptor, data, size, at);
}

ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    if (descriptor_below(descriptor) && strikes(WRITE)) return fail();
    return REAL(writev)(descriptor, parts, number);
}

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t size, unsigned flags) {
    if (descriptor_below(out) && strikes(WRITE)) return fail();
    return REAL(copy_file_range)(in, from, out, to, size, flags);
}

ssize_t sendfile(int out, int in, off_t *from, size_t size) {
    ssize_t (*real)(int, int, off_t *, size_t) = dlsym(RTLD_NEXT, "sendfile");
    if (descriptor_below(out) && strikes(WRITE)) return fail();
    return real(out, in, from, size);
}

ssize_t sendfile64(int out, int in, off_t *from, size_t size) {
    ssize_t (*real)(int, int, off_t *, size_t) = dlsym(RTLD_NEXT, "sendfile64");
    if (descriptor_below(out) && strikes(WRITE)) return fail();
    return real(out, in, from, size);
}

int fsync(int descriptor) {
    if (descriptor_below(descriptor) && strikes(SYNC)) return fail();
    return REAL(fsync)(descriptor);
}

int rename(const char *from, const char *to) {
    if (below(to) && strikes(RENAME)) return fail();
    return REAL(rename)(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    if (below(to) && strikes(RENAME)) return fail();
    return REAL(renameat)(a, from, b, to);
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    int (*real)(int, const char *, int, const char *, unsigned) = dlsym(RTLD_NEXT, "renameat2");
    if (below(to) && strikes(RENAME)) return fail();
    return real(a, from, b, to, flags);
}

int link(const char *from, const char *to) {
    if (below(to) && strikes(LINK)) return fail();
    return REAL(link)(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    if (below(to) && strikes(LINK)) return fail();
    return REAL(linkat)(a, from, b, to, flags);
}

int symlink(const char *from, const char *to) {
    if (below(to) && strikes(LINK)) return fail();
    return REAL(symlink)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    if (below(path) && strikes(MAKE)) return fail();
    return REAL(mkdir)(path, mode);
}

int unlink(const char *path) {
    if (below(path) && strikes(REMOVE)) return fail();
    return REAL(unlink)(path);
}

int rmdir(const char *path) {
    if (below(path) && strikes(REMOVE)) return fail();
    return REAL(rmdir)(path);
}

static int opening(const char *path, int flags) {
    return (flags & (O_CREAT | O_TRUNC)) && below(path) && strikes(OPEN);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    return opening(path, flags) ? fail() : real(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    return opening(path, flags) ? fail() : real(path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat");
    return opening(path, flags) ? fail() : real(at, path, flags, mode);
}
