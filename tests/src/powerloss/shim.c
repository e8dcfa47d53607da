/* LD_PRELOAD shim of the power-loss judge: records what is durable.
 *
 * Appends one line per event to the file named by AQUEDUCT_SHIM_LOG:
 *   F <inode> <size>            a file of that size was fsynced or fdatasynced; the size is from before the call
 *   D <ticket> <path>           a directory was fsynced; then one line per entry, as of before the call. Tickets
 *                               rise in the order in which the directories were read:
 *   E <inode> <name>
 *   .                           end of the entries
 *   T <inode> <size>            a file was cut to that size
 * Before a name is removed or replaced its file is linked into AQUEDUCT_SHIM_LIMBO/<inode>, so that the judge can
 * bring a removal back that was never made durable.
 *
 * Fails closed: an event that cannot be recorded ends the process.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -2;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void record(const char *text, size_t length) {
  if (log_fd == -2) {
    const char *path = getenv("AQUEDUCT_SHIM_LOG");
    log_fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
  }
  if (log_fd < 0 || write(log_fd, text, length) != (ssize_t)length) abort();
}

static char *directory(int fd, const char *path, size_t *length) {
  char *text = NULL;
  FILE *out = open_memstream(&text, length);
  DIR *dir = opendir(path);
  if (!out || !dir) abort();
  (void)fd;
  static unsigned long long tickets;
  fprintf(out, "D %llu %s\n", __atomic_add_fetch(&tickets, 1, __ATOMIC_SEQ_CST), path);
  for (struct dirent *entry; (entry = readdir(dir));)
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
      fprintf(out, "E %llu %s\n", (unsigned long long)entry->d_ino, entry->d_name);
  fputs(".\n", out);
  closedir(dir);
  fclose(out);
  return text;
}

static int sync_with(int (*real)(int), int fd) {
  struct stat st;
  char *text = NULL;
  size_t length = 0;
  if (fstat(fd, &st) == 0) {
    if (S_ISDIR(st.st_mode)) {
      char link[64], path[PATH_MAX];
      snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
      ssize_t n = readlink(link, path, sizeof path - 1);
      if (n < 0) abort();
      path[n] = 0;
      text = directory(fd, path, &length);
    } else if (S_ISREG(st.st_mode)) {
      text = malloc(64);
      length = (size_t)snprintf(text, 64, "F %llu %lld\n", (unsigned long long)st.st_ino, (long long)st.st_size);
    }
  }
  int result = real(fd);
  if (result == 0 && text) {
    pthread_mutex_lock(&lock);
    record(text, length);
    pthread_mutex_unlock(&lock);
  }
  free(text);
  return result;
}

int fsync(int fd) { return sync_with(REAL(fsync), fd); }
int fdatasync(int fd) { return sync_with(REAL(fdatasync), fd); }

static void keep(int dirfd, const char *path) {
  const char *limbo = getenv("AQUEDUCT_SHIM_LIMBO");
  struct stat st;
  if (!limbo || fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode)) return;
  char name[PATH_MAX];
  snprintf(name, sizeof name, "%s/%llu", limbo, (unsigned long long)st.st_ino);
  if (linkat(dirfd, path, AT_FDCWD, name, 0) && errno != EEXIST) abort();
}

int unlink(const char *path) { keep(AT_FDCWD, path); return REAL(unlink)(path); }
int unlinkat(int dirfd, const char *path, int flags) {
  if (!(flags & AT_REMOVEDIR)) keep(dirfd, path);
  return REAL(unlinkat)(dirfd, path, flags);
}
int rename(const char *from, const char *to) { keep(AT_FDCWD, to); return REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { keep(b, to); return REAL(renameat)(a, from, b, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
  if (!(flags & 2)) keep(b, to);
  return REAL(renameat2)(a, from, b, to, flags);
}

static void cut(int fd, long long size) {
  struct stat st;
  char text[64];
  if (fstat(fd, &st)) return;
  int n = snprintf(text, sizeof text, "T %llu %lld\n", (unsigned long long)st.st_ino, size);
  pthread_mutex_lock(&lock);
  record(text, (size_t)n);
  pthread_mutex_unlock(&lock);
}
int ftruncate(int fd, off_t size) { int r = REAL(ftruncate)(fd, size); if (!r) cut(fd, size); return r; }
int ftruncate64(int fd, off64_t size) { int r = REAL(ftruncate64)(fd, size); if (!r) cut(fd, size); return r; }
