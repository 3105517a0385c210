/* What libfuse offers and pyfuse3 does not pass on: preloaded into the server, it wraps entries of the public table of
 * operations that is given to fuse_session_new(3).
 *
 * - Directories are read without a handle (the handler of OPENDIR says ENOSYS): the inode takes its place.
 * - lseek, fallocate and copy_file_range are packed into the name of a getxattr request whose reply has the same bytes.
 *   The name begins with a secret, so nobody else can ask for it.
 * - O_TMPFILE, a request that libfuse knows only since 3.17, becomes a CREATE of a name that is the secret alone.
 * - Symbolic links are kept by the kernel.
 *
 * What it answers by itself is in answers.c, how it goes from one request to the next in turns.c.
 */
#define _GNU_SOURCE
#include "accelerator.h"
#include <dlfcn.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNNAMED 51 /* FUSE_TMPFILE, which older headers lack */

static struct fuse_lowlevel_ops theirs;
static char secret[64];

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

/* The request, or if it is one for an unnamed file, another one in its place, which libfuse knows. */
const struct fuse_buf *lamina_fuse_known(const struct fuse_buf *given)
{
	static char bytes[sizeof(struct fuse_in_header) + sizeof(struct fuse_create_in) + sizeof secret];
	static struct fuse_buf ours = {.mem = bytes};
	struct fuse_in_header *head = (void *) bytes;
	const size_t fixed = sizeof *head + sizeof(struct fuse_create_in);

	if (given->flags & FUSE_BUF_IS_FD || given->size < fixed
	    || ((const struct fuse_in_header *) given->mem)->opcode != UNNAMED)
		return given;
	memcpy(bytes, given->mem, fixed);
	strcpy(bytes + fixed, secret);
	head->opcode = FUSE_CREATE;
	head->len = ours.size = fixed + strlen(secret) + 1;
	return &ours;
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
	lamina_fuse_answer(&theirs, &ours);
	lamina_fuse_acknowledge_early(&theirs, &ours);
	ours.init = on_init;
	ours.readdirplus = on_readdirplus;
	ours.fsyncdir = on_fsyncdir;
	ours.lseek = on_lseek;
	ours.fallocate = on_fallocate;
	ours.copy_file_range = on_copy;
	return next(args, &ours, sizeof ours, userdata);
}
