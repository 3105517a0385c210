/* What libfuse offers and pyfuse3 does not pass on: preloaded into the server, it wraps entries of the public table of
 * operations that is given to fuse_session_new(3).
 *
 * - Directories are read without a handle (the handler of OPENDIR says ENOSYS): the inode takes its place.
 * - lseek, fallocate and copy_file_range are packed into the name of a getxattr request whose reply has the same bytes.
 *   The name begins with a secret, so nobody else can ask for it.
 * - Symbolic links are kept by the kernel.
 * - Reads and writes of open files are served here, since their handles are descriptors; and after a request that needed
 *   no Python the next one is taken at once.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 35
#include <dlfcn.h>
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST (1 << 20) /* of one read */
#define TURNS 256	  /* requests between two looks at Python, which has signals to heed */
#define FOREVER 1e9	  /* seconds that the kernel may keep attributes: only we change them */
#define TIMES (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)
#define PATIENCE 1	  /* millisecond to wait for the next request */

enum { READ, WRITE, GETATTR, SETATTR, GETXATTR, KINDS };

/* what hints.py reads and writes */
unsigned long lamina_fuse_counts[KINDS]; /* how many were served here */
uint64_t lamina_fuse_inodes[1 << 12], lamina_fuse_descriptors[1 << 12]; /* open files of the writable layer */
uint64_t lamina_fuse_plain[1 << 16]; /* inodes without capabilities and access lists */

static struct fuse_lowlevel_ops theirs;
static char secret[64];
static int served; /* the request at hand was answered without Python */

static void ask(fuse_req_t req, fuse_ino_t ino, const char *what, size_t size)
{
	char name[256];
	snprintf(name, sizeof name, "%s%s", secret, what);
	theirs.getxattr(req, ino, name, size);
}

static void on_init(void *data, struct fuse_conn_info *conn)
{
	theirs.init(data, conn);
	conn->want |= conn->capable & (FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA);
	/* only we change files, so a new time is no reason to read them again; and splicing takes more calls than reading */
	conn->want &= ~(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ);
}

static void on_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	fi->fh = ino;
	theirs.readdirplus(req, ino, size, off, fi);
}

static void on_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	fi->fh = ino;
	theirs.fsyncdir(req, ino, datasync, fi);
}

static void on_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	char what[128];
	snprintf(what, sizeof what, "seek,%lld,%d", (long long) off, whence);
	ask(req, ino, what, 8);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t length, struct fuse_file_info *fi)
{
	char what[128];
	snprintf(what, sizeof what, "allocate,%d,%lld,%lld", mode, (long long) off, (long long) length);
	ask(req, ino, what, 8);
}

static void on_copy(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t out,
		    off_t off_out, struct fuse_file_info *fi_out, size_t length, int flags)
{
	char what[160];
	if (length > 1 << 30)
		length = 1 << 30;
	snprintf(what, sizeof what, "copy,%lld,%llu,%lld,%llu", (long long) off_in, (unsigned long long) out,
		 (long long) off_out, (unsigned long long) length);
	ask(req, in, what, 8);
}

static void serve(int kind)
{
	lamina_fuse_counts[kind]++;
	served = 1;
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

static int descriptor_of(fuse_ino_t ino)
{
	size_t place = ino % (sizeof lamina_fuse_inodes / sizeof *lamina_fuse_inodes);
	return lamina_fuse_inodes[place] == ino ? (int) lamina_fuse_descriptors[place] : -1;
}

static void reply_attributes(fuse_req_t req, fuse_ino_t ino, int descriptor)
{
	struct stat status;

	if (fstat(descriptor, &status) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	status.st_ino = ino;
	fuse_reply_attr(req, &status, FOREVER);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int descriptor = descriptor_of(ino);

	if (descriptor < 0) {
		theirs.getattr(req, ino, fi);
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
	int descriptor = descriptor_of(ino);

	if (descriptor < 0 || which & ~(FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | TIMES)) {
		theirs.setattr(req, ino, to, which, fi);
		return;
	}
	if (set_attributes(descriptor, to, which) < 0)
		fuse_reply_err(req, errno);
	else
		reply_attributes(req, ino, descriptor);
	serve(SETATTR);
}

static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	if (lamina_fuse_plain[ino % (sizeof lamina_fuse_plain / sizeof *lamina_fuse_plain)] != ino
	    || (strcmp(name, "security.capability") && strncmp(name, "system.posix_acl_", 17))) {
		theirs.getxattr(req, ino, name, size);
		return;
	}
	fuse_reply_err(req, ENODATA);
	serve(GETXATTR);
}

/* pyfuse3 hands over one request, and returns to trio for the next: stay while none of them needs Python */
void fuse_session_process_buf(struct fuse_session *session, const struct fuse_buf *first)
{
	static void (*process)(struct fuse_session *, const struct fuse_buf *);
	static struct fuse_buf next;
	struct pollfd waiting = {.fd = fuse_session_fd(session), .events = POLLIN};

	if (!process)
		process = dlsym(RTLD_NEXT, "fuse_session_process_buf");
	for (int turn = 0;; turn++) {
		served = 0;
		process(session, turn ? &next : first);
		if (!served || turn == TURNS || poll(&waiting, 1, PATIENCE) <= 0)
			return;
		if (fuse_session_exited(session) || fuse_session_receive_buf(session, &next) <= 0)
			return;
	}
}

struct fuse_session *fuse_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *op, size_t op_size,
				      void *userdata)
{
	struct fuse_session *(*next)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *) =
		dlsym(RTLD_NEXT, "fuse_session_new"); /* NULL: not preloaded by our driver */
	const char *given = getenv("LAMINA_FUSE_SECRET_FOR_C");
	static struct fuse_lowlevel_ops ours;

	if (!given || op_size > sizeof theirs)
		return next(args, op, op_size, userdata);
	snprintf(secret, sizeof secret, "%s", given);
	memcpy(&theirs, op, op_size);
	memcpy(&ours, op, op_size);
	ours.init = on_init;
	ours.readdirplus = on_readdirplus;
	ours.fsyncdir = on_fsyncdir;
	ours.read = on_read;
	ours.write_buf = on_write_buf;
	ours.getattr = on_getattr;
	ours.setattr = on_setattr;
	ours.getxattr = on_getxattr;
	ours.lseek = on_lseek;
	ours.fallocate = on_fallocate;
	ours.copy_file_range = on_copy;
	return next(args, &ours, sizeof ours, userdata);
}
