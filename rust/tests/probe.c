// SPDX-License-Identifier: GPL-2.0
/*
 * Looks at a mounted kfs_example filesystem through system calls; says what is wrong and exits with 1 if anything is.
 *
 *   probe MOUNTPOINT DEVICE
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int bad, checks;

#define CHECK(cond, ...)							\
	do {									\
		checks++;							\
		if (!(cond)) {							\
			bad++;							\
			printf("%d: %s: ", __LINE__, #cond);			\
			printf(__VA_ARGS__);					\
			printf(" (errno %d)\n", errno);				\
		}								\
	} while (0)

#define STRIPE (192 << 10)
#define DATA (128 << 10)
#define PATTERN_SIZE ((3 << 20) + 123)
#define EPOCH 1700000000

static unsigned char pattern(uint64_t at)
{
	if (at >= PATTERN_SIZE || at % STRIPE >= DATA)
		return 0;
	return (unsigned char)(at * 0x9E3779B9u >> 13);
}

static void check_pattern(const unsigned char *p, uint64_t at, size_t n, const char *how)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != pattern(at + i)) {
			CHECK(0, "%s: byte %llu is %d, not %d", how, (unsigned long long)at + i,
			      p[i], pattern(at + i));
			return;
		}
	checks++;
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	CHECK(write(fd, "3", 1) == 1, "drop caches");
	close(fd);
}

static void check_stat(void)
{
	struct statx x;
	struct statvfs v;
	struct stat s;

	CHECK(!statx(AT_FDCWD, "pattern", 0, STATX_ALL | 0x8000 | STATX_DIOALIGN, &x), "statx");
	CHECK(x.stx_mask & STATX_BTIME && x.stx_btime.tv_sec == EPOCH && x.stx_btime.tv_nsec == 42, "btime");
	CHECK(x.stx_mtime.tv_sec == EPOCH + 5 && x.stx_mtime.tv_nsec == 5, "mtime");
	CHECK(x.stx_size == PATTERN_SIZE && x.stx_ino == 5 && x.stx_nlink == 1, "size, number, links");
	CHECK(x.stx_uid == 1005 && x.stx_gid == 100, "owner %d %d", x.stx_uid, x.stx_gid);
	CHECK(x.stx_mode == (S_IFREG | 0640), "mode %o", x.stx_mode);
	CHECK(x.stx_attributes & STATX_ATTR_COMPRESSED && x.stx_attributes_mask & STATX_ATTR_COMPRESSED, "attributes");
	CHECK(x.stx_mask & STATX_DIOALIGN && x.stx_dio_offset_align == 512, "dio");
	CHECK(!statx(AT_FDCWD, "hard", 0, STATX_ALL, &x), "statx");
	CHECK(x.stx_attributes & STATX_ATTR_IMMUTABLE && x.stx_nlink == 2, "immutable, links");
	CHECK(!lstat("null", &s) && S_ISCHR(s.st_mode) && s.st_rdev == makedev(1, 3), "device");
	CHECK(!lstat("fifo", &s) && S_ISFIFO(s.st_mode), "fifo");
	CHECK(!lstat("socket", &s) && S_ISSOCK(s.st_mode), "socket");
	CHECK(!statvfs(".", &v) && v.f_bfree == 10 && v.f_namemax == 255 && v.f_bsize == 4096, "statvfs");
	CHECK(stat("nothing", &s) == -1 && errno == ENOENT, "a missing name");
	CHECK(stat("pattern/x", &s) == -1 && errno == ENOTDIR, "a name in a file");
	char name[300];
	memset(name, 'x', 299);
	name[299] = 0;
	CHECK(stat(name, &s) == -1 && errno == ENAMETOOLONG, "a long name");
	CHECK(open("new", O_CREAT | O_WRONLY, 0600) == -1 && errno == EROFS, "create");
	CHECK(open("pattern", O_RDWR) == -1 && errno == EROFS, "open for writing");
	CHECK(unlink("pattern") == -1 && errno == EROFS, "unlink");
	CHECK(setxattr("hard", "user.x", "y", 1, 0) == -1 && errno == EROFS, "setxattr");
}

static void check_links(void)
{
	char target[100];
	char text[100];
	int fd;

	CHECK(readlink("link", target, sizeof(target)) == 9 && !memcmp(target, "dir/small", 9), "readlink");
	fd = open("link", O_RDONLY);
	CHECK(fd >= 0 && read(fd, text, 100) == 6 && !memcmp(text, "hello\n", 6), "through the link");
	close(fd);
	CHECK(open("link", O_RDONLY | O_NOFOLLOW) == -1 && errno == ELOOP, "O_NOFOLLOW");
	fd = open("null", O_WRONLY);
	CHECK(fd >= 0 && write(fd, "x", 1) == 1, "the device works");
	close(fd);
}

static void check_directory(void)
{
	DIR *d = opendir("many");
	struct dirent *e;
	static long tell[5002];
	static char seen[5002][16];
	int n = 0;

	CHECK(d, "opendir");
	while ((tell[n] = telldir(d)), (e = readdir(d)) && n < 5002) {
		snprintf(seen[n], 16, "%.15s", e->d_name);
		CHECK(e->d_type == (e->d_name[0] == '.' ? DT_DIR : DT_REG), "type of %s", e->d_name);
		if (e->d_name[0] == 'f')
			CHECK(e->d_ino == 100000 + strtoul(e->d_name + 1, NULL, 10), "number of %s", e->d_name);
		n++;
	}
	CHECK(n == 5002, "%d entries", n);
	for (int i = 0; i < n; i += 37) {
		seekdir(d, tell[i]);
		e = readdir(d);
		CHECK(e && !strcmp(e->d_name, seen[i]), "at position of %s", seen[i]);
	}
	closedir(d);
	struct stat s;
	CHECK(!stat("many/f04999", &s) && s.st_ino == 104999, "last entry");
	CHECK(stat("many/f05000", &s) == -1 && errno == ENOENT, "past the last entry");
}

static void check_read(void)
{
	unsigned char *all = malloc(PATTERN_SIZE + 4096), *map;
	int fd = open("pattern", O_RDONLY);
	ssize_t n;

	drop_caches();
	n = read(fd, all, PATTERN_SIZE + 4096);
	CHECK(n == PATTERN_SIZE, "read %zd", n);
	check_pattern(all, 0, PATTERN_SIZE, "read");
	drop_caches();
	srandom(7);
	for (int i = 0; i < 300; i++) {
		uint64_t at = random() % PATTERN_SIZE;
		size_t want = 1 + random() % 9000;

		n = pread(fd, all, want, at);
		CHECK(n == (ssize_t)(at + want > PATTERN_SIZE ? PATTERN_SIZE - at : want), "pread %zd", n);
		check_pattern(all, at, n, "pread");
	}
	CHECK(pread(fd, all, 10, PATTERN_SIZE) == 0, "at the end");
	drop_caches();
	map = mmap(NULL, PATTERN_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(map != MAP_FAILED, "mmap");
	for (uint64_t at = PATTERN_SIZE / 4096 * 4096; at; at -= 4096 * 7)
		if (at < 4096 * 7)
			break;
		else
			check_pattern(map + at, at, at + 4096 > PATTERN_SIZE ? PATTERN_SIZE - at : 4096, "mmap");
	check_pattern(map, 0, PATTERN_SIZE, "mmap");
	CHECK(map[PATTERN_SIZE] == 0, "after the end");
	munmap(map, PATTERN_SIZE);
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED, "shared writable");
	close(fd);
	int p[2];
	loff_t off = 4096;
	CHECK(!pipe(p), "pipe");
	fd = open("pattern", O_RDONLY);
	n = splice(fd, &off, p[1], NULL, 8192, 0);
	CHECK(n > 0 && read(p[0], all, 8192) == n, "splice %zd", n);
	check_pattern(all, 4096, n, "splice");
	close(fd);
	free(all);
}

static void check_direct(const char *device)
{
	unsigned char *buf = NULL, *ref;
	int fd = open("pattern", O_RDONLY | O_DIRECT), raw = open(device, O_RDONLY);
	ssize_t n;

	CHECK(!posix_memalign((void **)&buf, 4096, 8 << 20), "memory");
	ref = malloc(8 << 20);
	CHECK(fd >= 0, "open");
	memset(buf, 0xaa, 8 << 20);
	n = pread(fd, buf, 8 << 20, 0);
	CHECK(n == PATTERN_SIZE, "read %zd", n);
	check_pattern(buf, 0, PATTERN_SIZE, "direct");
	n = pread(fd, buf + 512, 5 * 512, 3 * 512);
	CHECK(n == 5 * 512, "sectors %zd", n);
	check_pattern(buf + 512, 3 * 512, 5 * 512, "direct sectors");
	CHECK(pread(fd, buf, 100, 0) == -1 && errno == EINVAL, "misaligned");
	CHECK(pread(fd, buf, 4096, 4 << 20) == 0, "after the end");
	close(fd);

	for (int direct = 0; direct < 2; direct++) {
		drop_caches();
		fd = open("device", O_RDONLY | (direct ? O_DIRECT : 0));
		CHECK(fd >= 0, "open");
		memset(buf, 0x55, 8 << 20);
		n = pread(fd, buf, 8 << 20, 0);
		CHECK(n == 8 << 20 && pread(raw, ref, 8 << 20, 0) == n && !memcmp(buf, ref, n), "device %d %zd", direct, n);
		for (int i = 0; i < 100; i++) {
			uint64_t at = random() % (8 << 11) * 512;
			size_t want = (1 + random() % 300) * 512;

			n = pread(fd, buf, want, at);
			CHECK(n > 0 && !memcmp(buf, ref + at, n), "device %d %llu %zd", direct, (unsigned long long)at, n);
		}
		close(fd);
	}
	close(raw);
	free(buf);
	free(ref);
}

static void check_errors(void)
{
	char c[4096];
	char *map;
	int fd = open("damaged", O_RDONLY), status;

	CHECK(read(fd, c, 1) == -1 && errno == EIO, "finished with an error");
	CHECK(pread(fd, c, 1, 500000) == -1 && errno == EIO, "dropped");
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (!fork())
		_exit(map[0] == 1);
	wait(&status);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x", status);
	close(fd);
	fd = open("damaged", O_RDONLY | O_DIRECT);
	void *buf = NULL;
	CHECK(!posix_memalign(&buf, 4096, 65536), "memory");
	CHECK(pread(fd, buf, 4096, 0) == -1 && errno == EIO, "direct");
	CHECK(pread(fd, buf, 4096, 65536) == -1 && errno == EIO, "direct, dropped");
	close(fd);
}

static void check_layout(void)
{
	int fd = open("pattern", O_RDONLY);
	struct {
		struct fiemap f;
		struct fiemap_extent e[40];
	} m = { .f = { .fm_length = ~0ull, .fm_extent_count = 40 } };

	CHECK(lseek(fd, 0, SEEK_HOLE) == DATA, "first hole");
	CHECK(lseek(fd, DATA, SEEK_DATA) == STRIPE, "second data");
	CHECK(lseek(fd, DATA + 5, SEEK_HOLE) == DATA + 5, "in the hole");
	CHECK(lseek(fd, 3 << 20, SEEK_DATA) == 3 << 20 && lseek(fd, 3 << 20, SEEK_HOLE) == PATTERN_SIZE, "the end");
	CHECK(lseek(fd, PATTERN_SIZE, SEEK_DATA) == -1 && errno == ENXIO, "after the end");
	CHECK(lseek(fd, 0, SEEK_END) == PATTERN_SIZE, "SEEK_END");
	CHECK(!ioctl(fd, FS_IOC_FIEMAP, &m), "fiemap");
	CHECK(m.f.fm_mapped_extents == 17, "%u extents", m.f.fm_mapped_extents);
	CHECK(m.e[1].fe_logical == STRIPE && m.e[1].fe_length == DATA && m.e[1].fe_physical == (1 << 30) + STRIPE, "extent");
	CHECK(m.e[1].fe_flags & FIEMAP_EXTENT_SHARED && m.e[16].fe_flags & FIEMAP_EXTENT_LAST, "flags");
	close(fd);
}

static void check_xattr(void)
{
	char text[200];
	ssize_t n;

	CHECK(getxattr("hard", "user.colour", NULL, 0) == 7, "length");
	CHECK(getxattr("hard", "user.colour", text, 200) == 7 && !memcmp(text, "blueish", 7), "value");
	CHECK(getxattr("hard", "user.colour", text, 5) == -1 && errno == ERANGE, "short buffer");
	CHECK(getxattr("hard", "user.taste", text, 200) == -1 && errno == ENODATA, "no such attribute");
	CHECK(getxattr("hard", "security.x", text, 200) == -1 && errno == EOPNOTSUPP, "no such prefix");
	CHECK(getxattr("hard", "trusted.secret", text, 200) == 5, "trusted");
	n = listxattr("hard", text, 200);
	CHECK(n == 12 + 15 + 24 && !memcmp(text, "user.colour\0trusted.secret\0system.posix_acl_access", n), "list %zd", n);
	CHECK(listxattr("hard", text, 20) == -1 && errno == ERANGE, "short buffer");
	CHECK(listxattr("pattern", text, 20) == 0, "none");
	if (!fork()) {
		if (setuid(1234))
			_exit(9);
		n = listxattr("hard", text, 200);
		_exit(!(n == 12 + 24 && getxattr("hard", "trusted.secret", text, 200) == -1));
	}
	int status;
	wait(&status);
	CHECK(status == 0, "without privilege: %x", status);
	n = getxattr("hard", "system.posix_acl_access", text, 200);
	CHECK(n == 4 + 5 * 8, "acl %zd", n);
	uint32_t id;
	memcpy(&id, text + 4 + 8 + 4, 4);
	CHECK(id == 1234, "user %u", id);
	CHECK(getxattr("dir", "system.posix_acl_default", text, 200) == -1 && errno == ENODATA, "no default acl");
}

static void check_handles(void)
{
	struct {
		struct file_handle h;
		char room[128];
	} h = { .h = { .handle_bytes = 128 } };
	int id, mnt = open(".", O_RDONLY | O_DIRECTORY), fd;
	struct stat s;
	char text[10];

	CHECK(!name_to_handle_at(AT_FDCWD, "dir/small", &h.h, &id, 0), "name_to_handle_at");
	CHECK(h.h.handle_type == 1 && h.h.handle_bytes == 8, "type %d, %u bytes", h.h.handle_type, h.h.handle_bytes);
	drop_caches();
	fd = open_by_handle_at(mnt, &h.h, O_RDONLY);
	CHECK(fd >= 0 && !fstat(fd, &s) && s.st_ino == 10, "open_by_handle_at");
	CHECK(read(fd, text, 10) == 6, "read");
	close(fd);
	((uint32_t *)h.h.f_handle)[1] ^= 1;
	CHECK(open_by_handle_at(mnt, &h.h, O_RDONLY) == -1 && errno == ESTALE, "wrong generation");
	((uint32_t *)h.h.f_handle)[0] = 77777;
	((uint32_t *)h.h.f_handle)[1] = 77777 ^ 0x5555;
	CHECK(open_by_handle_at(mnt, &h.h, O_RDONLY) == -1 && errno == ESTALE, "no such file");
	h.h.handle_bytes = 4;
	CHECK(open_by_handle_at(mnt, &h.h, O_RDONLY) == -1 && errno == ESTALE, "a short handle");
	h.h.handle_bytes = 4;
	CHECK(name_to_handle_at(AT_FDCWD, "dir/small", &h.h, &id, 0) == -1 && errno == EOVERFLOW && h.h.handle_bytes == 8, "no room");
	h.h.handle_bytes = 128;
	CHECK(!name_to_handle_at(AT_FDCWD, "dir", &h.h, &id, 0), "a directory");
	drop_caches();
	fd = open_by_handle_at(mnt, &h.h, O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0 && !fstatat(fd, "../pattern", &s, 0) && s.st_ino == 5, "reconnected");
	close(fd);
	close(mnt);
}

int main(int argc, char **argv)
{
	if (argc != 3 || chdir(argv[1]))
		return 2;
	check_stat();
	check_links();
	check_directory();
	check_read();
	check_direct(argv[2]);
	check_errors();
	check_layout();
	check_xattr();
	check_handles();
	printf("%d checks, %d failed\n", checks, bad);
	return bad != 0;
}
