/* A disk that fails, fills up, slows down or lies, for a process that this library is preloaded
 * into. A fault is on while a file of its name is in the folder that FAULTY_DISK names. Only files
 * of a node's log and its snapshots are concerned. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int on(const char *fault) {
    const char *folder = getenv("FAULTY_DISK");
    char path[4096];
    if (!folder || snprintf(path, sizeof path, "%s/%s", folder, fault) >= (int)sizeof path) return 0;
    return access(path, F_OK) == 0;
}

static int is_data(const char *path) {
    return strstr(path, "/wal-") != NULL || strstr(path, "/snapshots-") != NULL;
}

static int is_data_file(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_data(path);
}

static int fails(int error) {
    errno = error;
    return -1;
}

static int open_with(const char *name, const char *path, int flags, mode_t mode) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
    if ((flags & O_CREAT) && is_data(path) && on("full") && access(path, F_OK) != 0) return fails(ENOSPC);
    return real(path, flags, mode);
}

#define OPEN(function)                                                                                       \
    int function(const char *path, int flags, ...) {                                                         \
        mode_t mode = 0;                                                                                     \
        if (flags & O_CREAT) {                                                                               \
            va_list rest;                                                                                    \
            va_start(rest, flags);                                                                           \
            mode = va_arg(rest, mode_t);                                                                     \
            va_end(rest);                                                                                    \
        }                                                                                                    \
        return open_with(#function, path, flags, mode);                                                      \
    }
OPEN(open)
OPEN(open64)

static ssize_t write_with(const char *name, int fd, const void *bytes, size_t count, off64_t offset) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, name);
    if (is_data_file(fd)) {
        struct stat found;
        if (on("full") && fstat(fd, &found) == 0 && offset + (off64_t)count > found.st_size) return fails(ENOSPC);
        if (on("write-fails")) return fails(EIO);
        if (on("write-lost")) return (ssize_t)count;
    }
    return real(fd, bytes, count, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return write_with("pwrite", fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return write_with("pwrite64", fd, bytes, count, offset);
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    if (is_data_file(fd)) {
        if (on("sync-fails")) return fails(EIO);
        if (on("slow")) {
            struct timespec time = {0, 200 * 1000 * 1000};
            nanosleep(&time, NULL);
        }
    }
    return real(fd);
}
