/* Requests that are answered without Python: reads and writes, since handles of files are descriptors; attributes of what is
 * open; opening once more what is open.
 */
#define _GNU_SOURCE
#include "accelerator.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST (1 << 20) /* of one read */
#define FOREVER 1e9	  /* seconds that the kernel may keep attributes: only we change them */
#define TIMES (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)
#define DIRECTORY (1L << 32) /* beside a descriptor, which was opened with O_PATH */
#define LOWER (1L << 33)     /* likewise: a file of a lower layer */
#define STAYS_OPEN (1 << 30) /* when the last user has closed it */

enum { READ, WRITE, GETATTR, SETATTR, GETXATTR, OPEN, RELEASE, KINDS };

/* what hints.py reads and writes */
unsigned long lamina_fuse_counts[KINDS]; /* how many were served here */
uint64_t lamina_fuse_inodes[1 << 14], lamina_fuse_descriptors[1 << 14]; /* what is open */
int32_t lamina_fuse_users[1 << 20]; /* by descriptor: how many have it open, and STAYS_OPEN */
uint64_t lamina_fuse_settled[1 << 12]; /* inodes whose attributes hold until they are named here no more */
uint64_t lamina_fuse_plain[1 << 16]; /* inodes without capabilities and access lists */

static const struct fuse_lowlevel_ops *theirs;

static void serve(int kind)
{
	lamina_fuse_counts[kind]++;
	lamina_fuse_served = 1;
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	static char bytes[LARGEST] __attribute__((aligned(4096)));
	ssize_t got = pread(fi->fh, bytes, size < LARGEST ? size : LARGEST, off);

	if (got < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, bytes, got);
	serve(READ);
}

static void on_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *from, off_t off, struct fuse_file_info *fi)
{
	struct fuse_bufvec to = FUSE_BUFVEC_INIT(fuse_buf_size(from));
	ssize_t put;

	to.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	to.buf[0].fd = fi->fh;
	to.buf[0].pos = off;
	put = fuse_buf_copy(&to, from, 0);
	if (put < 0)
		fuse_reply_err(req, -put);
	else
		fuse_reply_write(req, put);
	serve(WRITE);
}

static int64_t descriptor_of(fuse_ino_t ino)
{
	size_t place = ino % (sizeof lamina_fuse_inodes / sizeof *lamina_fuse_inodes);
	return lamina_fuse_inodes[place] == ino ? (int64_t) lamina_fuse_descriptors[place] : -1;
}

static void reply_attributes(fuse_req_t req, fuse_ino_t ino, int64_t descriptor)
{
	struct stat status;

	if (fstat(descriptor, &status) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	status.st_ino = ino;
	if (descriptor & DIRECTORY)
		status.st_nlink = 1; /* how many directories it holds is not counted */
	fuse_reply_attr(req, &status, FOREVER);
}

static struct stat told[sizeof lamina_fuse_settled / sizeof *lamina_fuse_settled];

static size_t place_of(fuse_ino_t ino)
{
	return ino % (sizeof told / sizeof *told);
}

/* What Python answers is kept, if it says that it is worth it. */
int fuse_reply_attr(fuse_req_t req, const struct stat *status, double timeout)
{
	static int (*next)(fuse_req_t, const struct stat *, double);

	if (!next)
		next = dlsym(RTLD_NEXT, "fuse_reply_attr");
	if (lamina_fuse_settled[place_of(status->st_ino)] == status->st_ino)
		told[place_of(status->st_ino)] = *status;
	return next(req, status, timeout);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int64_t descriptor = descriptor_of(ino);

	if (lamina_fuse_settled[place_of(ino)] == ino && told[place_of(ino)].st_ino == ino) {
		fuse_reply_attr(req, &told[place_of(ino)], FOREVER);
		serve(GETATTR);
		return;
	}
	if (descriptor < 0 || (descriptor & LOWER && lamina_fuse_settled[place_of(ino)] != ino)) {
		theirs->getattr(req, ino, fi);
		return;
	}
	reply_attributes(req, ino, descriptor);
	serve(GETATTR);
}

static int set_attributes(int descriptor, const struct stat *to, int which)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	if (which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)
	    && fchown(descriptor, which & FUSE_SET_ATTR_UID ? to->st_uid : (uid_t) -1,
		      which & FUSE_SET_ATTR_GID ? to->st_gid : (gid_t) -1) < 0)
		return -1;
	if (which & FUSE_SET_ATTR_MODE && fchmod(descriptor, to->st_mode & 07777) < 0)
		return -1;
	if (which & FUSE_SET_ATTR_ATIME)
		times[0] = to->st_atim;
	if (which & FUSE_SET_ATTR_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	if (which & FUSE_SET_ATTR_MTIME)
		times[1] = to->st_mtim;
	if (which & FUSE_SET_ATTR_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	return which & TIMES ? futimens(descriptor, times) : 0;
}

static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *to, int which, struct fuse_file_info *fi)
{
	int64_t descriptor = descriptor_of(ino);

	if (descriptor < 0 || descriptor & (DIRECTORY | LOWER) || which & ~(FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | TIMES)) {
		theirs->setattr(req, ino, to, which, fi);
		return;
	}
	if (set_attributes(descriptor, to, which) < 0)
		fuse_reply_err(req, errno);
	else
		reply_attributes(req, ino, descriptor);
	serve(SETATTR);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int64_t descriptor = descriptor_of(ino);

	if (descriptor < 0 || descriptor & DIRECTORY || fi->flags & (O_ACCMODE | O_TRUNC)) { /* O_RDONLY is none of them */
		theirs->open(req, ino, fi);
		return;
	}
	fi->fh = (uint32_t) descriptor;
	fi->keep_cache = 1;
	lamina_fuse_users[fi->fh]++;
	if (fuse_reply_open(req, fi))
		lamina_fuse_users[fi->fh]--; /* who asked does not wait any more */
	serve(OPEN);
}

static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int32_t users = lamina_fuse_users[fi->fh];

	if ((users & ~STAYS_OPEN) < (users & STAYS_OPEN ? 1 : 2)) {
		theirs->release(req, ino, fi);
		return;
	}
	lamina_fuse_users[fi->fh]--;
	fuse_reply_err(req, 0);
	serve(RELEASE);
}

static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	if (lamina_fuse_plain[ino % (sizeof lamina_fuse_plain / sizeof *lamina_fuse_plain)] != ino
	    || (strcmp(name, "security.capability") && strncmp(name, "system.posix_acl_", 17))) {
		theirs->getxattr(req, ino, name, size);
		return;
	}
	fuse_reply_err(req, ENODATA);
	serve(GETXATTR);
}

void lamina_fuse_answer(const struct fuse_lowlevel_ops *given, struct fuse_lowlevel_ops *ours)
{
	theirs = given;
	ours->read = on_read;
	ours->write_buf = on_write_buf;
	ours->getattr = on_getattr;
	ours->setattr = on_setattr;
	ours->open = on_open;
	ours->release = on_release;
	ours->getxattr = on_getxattr;
}
